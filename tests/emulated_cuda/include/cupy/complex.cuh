// In place of CuPy's: complex numbers that can be stored, which is all that an array of them must do to be refused.
#pragma once

namespace thrust {
template <class T> struct complex {
    T real, imag;
    complex() = default;
    template <class A> complex(A real) : real((T)real), imag(0) {}
};
}  // namespace thrust
using thrust::complex;
