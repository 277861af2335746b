// __nv_bfloat16 for the processor: the upper half of a float, rounding to nearest even as CUDA's does.
#pragma once

struct __nv_bfloat16 { unsigned short bits; };

inline __nv_bfloat16 __float2bfloat16(float x) {
    unsigned all = emulated_bits<unsigned>(x);
    if ((all & 0x7fffffff) > 0x7f800000) return {0x7fff};                      // NaN, CUDA's canonical one
    return {(unsigned short)((all + 0x7fff + (all >> 16 & 1)) >> 16)};         // ties to the even neighbour
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }

inline float __bfloat162float(__nv_bfloat16 b) {
    float x = emulated_bits<float>((unsigned)b.bits << 16);
    return isnan(x) ? emulated_bits<float>((unsigned)b.bits << 16 | 0x400000u) : x;  // NaN made quiet
}

template <> struct emulated::TypeName<__nv_bfloat16> { static const char* get() { return "bfloat16"; } };
