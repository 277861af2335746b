// A kernel's signature as text, for the check of its arguments, and what unpacks them.
#pragma once

namespace emulated {

template <class T> struct TypeName { static const char* get() { return "?"; } };
#define EMULATED_NAME(type, name) \
    template <> struct TypeName<type> { static const char* get() { return name; } };
EMULATED_NAME(void, "void")
EMULATED_NAME(bool, "bool")
EMULATED_NAME(float, "float32")
EMULATED_NAME(double, "float64")
EMULATED_NAME(char, "int8")
EMULATED_NAME(signed char, "int8")
EMULATED_NAME(unsigned char, "uint8")
EMULATED_NAME(short, "int16")
EMULATED_NAME(unsigned short, "uint16")
EMULATED_NAME(int, "int32")
EMULATED_NAME(unsigned, "uint32")
EMULATED_NAME(long, "int64")
EMULATED_NAME(unsigned long, "uint64")
EMULATED_NAME(long long, "int64")
EMULATED_NAME(unsigned long long, "uint64")

template <class T> struct Parameter { static std::string get() { return TypeName<T>::get(); } };
template <class T> struct Parameter<T*> { static std::string get() { return std::string("out ") + TypeName<T>::get(); } };
template <class T> struct Parameter<const T*> { static std::string get() { return std::string("in ") + TypeName<T>::get(); } };

template <auto kernel, class... A> struct Kernel {
    static inline void** arguments;

    template <size_t... I> static void unpack(std::index_sequence<I...>) { kernel(*(A*)arguments[I]...); }
    static void call() { unpack(std::index_sequence_for<A...>()); }

    static int launch(Launch& launch, void** args) {
        arguments = args;
        call_kernel = call;
        return run_grid(launch);
    }
    static const char* parameters() {
        static std::string text = ((Parameter<A>::get() + ";") + ... + "");
        return text.c_str();
    }
};
template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> : Kernel<kernel, A...> {};

}  // namespace emulated
