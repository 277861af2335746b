// Applies one of math.cuh's functions to the numbers on standard input: vectors FUNCTION f32|f64 < numbers > results.
//
// Both arrays end where memory does, and begin wherever that leaves them: a load or store of one number too many is
// a crash, one that wants alignment too. Numbers behind the last full vector go through partial loads and stores.

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "math.cuh"

namespace GPULSTM_ISA {

// `bytes` bytes in front of a page that must not be touched.
static char* before_the_end(size_t bytes) {
    const size_t page = 65536, size = (bytes + page - 1) / page * page;
    char* at = (char*)mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(at + size, page, PROT_NONE);
    return at + size - bytes;
}

template <class V, class F> static void apply(const char* in, char* out, size_t n, F f) {
    using T = Scalar<V>;
    const size_t lanes = Traits<V>::lanes, full = n / lanes * lanes;
    const T* x = (const T*)in;
    T* y = (T*)out;
    for (size_t k = 0; k < full; k += lanes) store<V>(y + k, f(load<V>(x + k)));
    store<V>(y + full, f(load<V>(x + full, n - full)), n - full);
}

template <class V> static int run(const char* name, const char* x, char* y, size_t n) {
#define FUNCTION(f, expression)                                      \
    if (!strcmp(name, #f)) {                                         \
        apply<V>(x, y, n, [](V v) -> V { return expression; });      \
        return 0;                                                    \
    }
    FUNCTION(exp, exp_(v))
    FUNCTION(expm1, expm1_(v))
    FUNCTION(log1p, log1p_(v))
    FUNCTION(tanh, tanh_(v))
    FUNCTION(sigmoid, sigmoid(v))
    FUNCTION(sqrt, sqrt_(v))
    FUNCTION(absolute, absolute(v))
    FUNCTION(minimum, minimum(v, number<V>(0.5)))
    FUNCTION(maximum, maximum(v, number<V>(0.5)))
    FUNCTION(minimum_turned, minimum(number<V>(0.5), v))
    FUNCTION(maximum_turned, maximum(number<V>(0.5), v))
    FUNCTION(where, where(((v > 0) & (v < 1)) | (v == 2), stored(v) * 3, 1 - v))
    FUNCTION(number, number<V>(0.1) + v)
    return 2;
}

}  // namespace GPULSTM_ISA

int main(int count, char** arguments) {
    if (count != 3) return 2;
    size_t width = strcmp(arguments[2], "f64") ? 4 : 8, room = 1 << 28, bytes = 0;
    char* buffer = GPULSTM_ISA::before_the_end(room);
    for (size_t got; (got = fread(buffer + bytes, 1, room - bytes, stdin)) > 0;) bytes += got;
    char *x = GPULSTM_ISA::before_the_end(bytes), *y = GPULSTM_ISA::before_the_end(bytes);
    memcpy(x, buffer, bytes);
    using namespace GPULSTM_ISA;
    int failed = width == 4 ? run<Vector<float>>(arguments[1], x, y, bytes / width)
                            : run<Vector<double>>(arguments[1], x, y, bytes / width);
    fwrite(y, 1, bytes, stdout);
    return failed;
}
