// The processor's engine, for one instruction set and one type: whole sequences of every cell of cells.inc.
//
// gpulstm/building.py decides the macros and flags, and writes cells.inc, which has the cells' code and a list of them:
// CELL(Lstm) and so on.

#include <cstring>

#include "exported.h"
#include "math.cuh"
#include "pool.h"

namespace GPULSTM_ISA {
#include "cells.inc"  // the cells' code

#include "lanes.h"
#include "product.h"
#include "sequence.h"
#include "forward.h"
#include "backward.h"
#include "gradients.h"
#include "steps.h"
#include "normed.h"

enum What { SIZES, FORWARD, BACKWARD, NUMBERS };

template <class C, class V> Code<V> code_of() {
    Code<V> code = {C::gates, C::states, C::vectors, C::kept, C::split, C::direct, C::inner, C::normed};
    if constexpr (C::normed) {
        using Of = NormedSteps<C, V>;
        code.kept = Of::K;
        code.normalise_input = Of::normalise_input;
        code.forward = Of::forward;
        code.backward = Of::backward;
    } else {
        using Of = Steps<C, V>;
        code.forward = Of::forward;
        code.backward = Of::backward;
        if constexpr (C::inner) code.multiplied = Of::multiplied, code.inner_backward = Of::inner_backward;
    }
    return code;
}

template <class V, class Pass> OUTLINED void run(const Code<V>& code, Args& a) {
    Carver save(a.saved), scratch(a.scratch);
    Pass pass(a, code, save, scratch);
    // One thread does small work, which would end before another thread could begin.
    const double work = 2.0 * a.T * a.B * a.H * (a.D + a.P);
    gpulstm_parallel(work < 2e5 ? 1 : (int)a.threads, Pass::work, &pass);
}

template <class V> OUTLINED void call(const Code<V>& code, What what, Args& a) {
    const Size blocks = blocks_of(a.H, lanes<V>);
    if (a.threads > blocks) a.threads = blocks;
    if (what == FORWARD) return run<V, Forward<V>>(code, a);
    if (what == BACKWARD) return run<V, Backward<V>>(code, a);
    Carver save(nullptr), forward(nullptr), again(nullptr), backward(nullptr);
    Forward<V>(a, code, save, forward);
    Backward<V>(a, code, again, backward);
    a.saved_bytes = save.bytes();
    a.forward_bytes = forward.bytes();
    a.backward_bytes = backward.bytes();
    a.used_up = Backward<V>::in_place(code);
}

// The numbers that the row in Python states too, in the order of Cell.row. A cell where they differ must not run.
template <class C> void tell(Size* numbers) {
    const Size besides = C::kept > C::gates ? C::kept - C::gates : 0;
    const Size all[] = {C::gates, C::states, C::vectors, besides, C::split, C::direct, C::inner, C::normed, C::options};
    for (Size number : all) *numbers++ = number;
}

// V is a template parameter, since otherwise the objects for two types would share one function.
template <class C, class V> void serve(What what, void* arguments) {
    if (what == NUMBERS) return tell<C>((Size*)arguments);
    call(code_of<C, V>(), what, *(Args*)arguments);
}

}  // namespace GPULSTM_ISA

// Returns 0, or 1 if there is no cell of that name. `arguments` are Args; for NUMBERS they are an array of Size, of as
// many elements as `tell` writes.
EXPORTED int ENTRY(engine)(const char* cell, int what, void* arguments) {
    using namespace GPULSTM_ISA;
#define CELL(X) \
    if (!strcmp(cell, #X)) return serve<X, Vector<REAL>>((What)what, arguments), 0;
#include "cells.inc"
    return 1;
}
