// The threads of a library with a user's own cell: it borrows those of gpulstm's engine, so that there is one pool.
#include "exported.h"

typedef void (*Parallel)(int threads, void (*work)(void* context, int thread, int threads), void* context);
static Parallel lent;

// gpulstm/engine.py hands over the engine's gpulstm_parallel before anything else is called.
EXPORTED void gpulstm_borrow(Parallel parallel)
{
    lent = parallel;
}

extern "C" void gpulstm_parallel(int threads, void (*work)(void* context, int thread, int threads), void* context)
{
    lent(threads, work, context);
}
