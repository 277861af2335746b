// How the driver starts a kernel, and what it learns of the kernel's parameters.
#pragma once

template <typename T, int ndim, bool c_contiguous, bool use_32bit_indexing> class CArray;  // CuPy's view of an array

namespace emulated {

// The linker makes these two symbols around the section that compile.py puts __shared__ variables in.
extern "C" char __start_emulated_shared[] __attribute__((weak)), __stop_emulated_shared[] __attribute__((weak));

static size_t static_shared() { return __start_emulated_shared ? __stop_emulated_shared - __start_emulated_shared : 0; }

// A pointer to const is read, any other may be written; a CArray begins with a pointer.
template <class T> struct Kind { static constexpr const char* name = "value"; };
template <class T> struct Kind<T*> { static constexpr const char* name = "out"; };
template <class T> struct Kind<const T*> { static constexpr const char* name = "in"; };
template <class T, int n, bool c, bool i> struct Kind<CArray<T, n, c, i>> { static constexpr const char* name = "out"; };

struct Parameter {
    const char *kind, *name;
    size_t size;
};

template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> {
    static inline void** arguments;

    template <class... Before> static void unpack(Before... before) {
        if constexpr (sizeof...(Before) == sizeof...(A)) kernel(*(A*)before...);
        else unpack(before..., arguments[sizeof...(Before)]);
    }
    static void call() { unpack(); }

    static int launch(Launch& launch, void** args) {
        arguments = args;
        return run_grid(launch, call, __start_emulated_shared, static_shared());
    }
    // The parameters, and one more without a name.
    static const Parameter* parameters(const char* const* names) {
        static Parameter all[] = {{Kind<A>::name, nullptr, sizeof(A)}..., {nullptr, nullptr, 0}};
        for (size_t k = 0; k < sizeof...(A); ++k) all[k].name = names[k];
        return all;
    }
};

}  // namespace emulated
