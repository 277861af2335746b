// __half for the processor: 16 bits of storage and the conversions, rounding to nearest even as CUDA's do.
#pragma once

struct __half { unsigned short bits; };

inline __half __float2half(float x) {
    unsigned all = emulated_bits<unsigned>(x), sign = all >> 16 & 0x8000, magnitude = all & 0x7fffffff;
    if (magnitude > 0x7f800000) return {0x7fff};                               // NaN, CUDA's canonical one
    if (magnitude >= 0x47800000) return {(unsigned short)(sign | 0x7c00)};     // 2^16 and above: infinity
    if (magnitude < 0x38800000) {                                              // below 2^-14: subnormal, steps of 2^-24
        float steps = emulated_bits<float>(magnitude) * 16777216.0f;           // exact: a power of two
        return {(unsigned short)(sign | (unsigned)nearbyintf(steps))};
    }
    unsigned rounded = magnitude + 0xfff + (magnitude >> 13 & 1);              // ties to the even neighbour
    return {(unsigned short)(sign | ((rounded - 0x38000000) >> 13))};          // exponent bias 127 becomes 15
}
inline __half __float2half_rn(float x) { return __float2half(x); }

inline float __half2float(__half h) {
    unsigned sign = (h.bits & 0x8000u) << 16, exponent = h.bits >> 10 & 31, fraction = h.bits & 0x3ff;
    if (exponent == 31)                                                        // infinity, or NaN made quiet
        return emulated_bits<float>(sign | 0x7f800000 | fraction << 13 | (fraction ? 0x400000u : 0));
    if (exponent == 0) {
        float magnitude = fraction / 16777216.0f;
        return sign ? -magnitude : magnitude;
    }
    return emulated_bits<float>(sign | (exponent + 112) << 23 | fraction << 13);
}

template <> struct emulated::TypeName<__half> { static const char* get() { return "float16"; } };
