// __half for the processor: 16 bits of storage and the conversions, rounding to nearest even as CUDA's do.
#pragma once

struct __half_raw { unsigned short x; };

struct __half {
    unsigned short bits;
    __half() = default;
    __half(__half_raw raw) : bits(raw.x) {}
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __half(T x);
    operator float() const;
    operator __half_raw() const { return {bits}; }
};
typedef __half half;

inline __half __ushort_as_half(unsigned short bits) { return __half_raw{bits}; }
inline unsigned short __half_as_ushort(__half h) { return h.bits; }

inline __half __float2half(float x) {
    unsigned all = emulated_bits<unsigned>(x), sign = all >> 16 & 0x8000, magnitude = all & 0x7fffffff;
    unsigned rounded;
    if (magnitude > 0x7f800000) return __ushort_as_half(0x7fff);               // NaN, CUDA's canonical one
    if (magnitude >= 0x47800000) {                                             // 2^16 and above: infinity
        rounded = sign | 0x7c00;
    } else if (magnitude < 0x38800000) {                                       // below 2^-14: subnormal, steps of 2^-24
        rounded = sign | (unsigned)nearbyintf(emulated_bits<float>(magnitude) * 16777216.0f);  // exact: a power of two
    } else {
        magnitude += 0xfff + (magnitude >> 13 & 1);                            // ties to the even neighbour
        rounded = sign | ((magnitude - 0x38000000) >> 13);                     // exponent bias 127 becomes 15
    }
    return __ushort_as_half((unsigned short)rounded);
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

template <class T, class> inline __half::__half(T x) : bits(__float2half((float)x).bits) {}
inline __half::operator float() const { return __half2float(*this); }
