// __nv_bfloat16 for the processor: the upper half of a float, rounding to nearest even as CUDA's does.
#pragma once

struct __nv_bfloat16_raw { unsigned short x; };

struct __nv_bfloat16 {
    unsigned short bits;
    __nv_bfloat16() = default;
    __nv_bfloat16(__nv_bfloat16_raw raw) : bits(raw.x) {}
    template <class T, class = std::enable_if_t<std::is_arithmetic_v<T>>> __nv_bfloat16(T x);
    operator float() const;
};

inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return __nv_bfloat16_raw{bits}; }
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 b) { return b.bits; }

inline __nv_bfloat16 __float2bfloat16(float x) {
    unsigned all = emulated_bits<unsigned>(x);
    if ((all & 0x7fffffff) > 0x7f800000) return __ushort_as_bfloat16(0x7fff);  // NaN, CUDA's canonical one
    return __ushort_as_bfloat16((all + 0x7fff + (all >> 16 & 1)) >> 16);       // ties to the even neighbour
}
inline __nv_bfloat16 __float2bfloat16_rn(float x) { return __float2bfloat16(x); }

inline float __bfloat162float(__nv_bfloat16 b) {
    float x = emulated_bits<float>((unsigned)b.bits << 16);
    return isnan(x) ? emulated_bits<float>((unsigned)b.bits << 16 | 0x400000u) : x;  // NaN made quiet
}
inline bool __hisnan(__nv_bfloat16 b) { return (b.bits & 0x7fff) > 0x7f80; }
inline int __hisinf(__nv_bfloat16 b) { return b.bits == 0x7f80 ? 1 : b.bits == 0xff80 ? -1 : 0; }

template <class T, class> inline __nv_bfloat16::__nv_bfloat16(T x) : bits(__float2bfloat16((float)x).bits) {}
inline __nv_bfloat16::operator float() const { return __bfloat162float(*this); }
inline bool operator==(__nv_bfloat16 a, __nv_bfloat16 b) { return (float)a == (float)b; }
