// What this processor can run, and which text the library was compiled from.
#include <cstring>

#include "exported.h"

// 1 where the code for instruction set `isa` runs here, the operating system's part included; else 0.
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

// The name that gpulstm/building.py gives to all text and flags of this library.
EXPORTED const char* gpulstm_text(void)
{
    return
#include "text.inc"
        ;
}
