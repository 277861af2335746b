// What this processor can run, and the source text that the library was compiled from.
#include <cstring>

#include "exported.h"

// Returns 1 if this processor and its operating system support the instruction set `isa`, else 0.
EXPORTED int gpulstm_supports(const char* isa)
{
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_cpu_init();
    bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
    if (!strcmp(isa, "avx2")) return avx2;
    if (!strcmp(isa, "avx512")) return avx2 && avx512;
#endif
    return !strcmp(isa, "baseline");
}

// The hash that gpulstm/building.py makes of all source text and flags of this library.
EXPORTED const char* gpulstm_text(void)
{
    return
#include "text.inc"
        ;
}
