// Marks what Python calls: EXPORTED before a function, and ENTRY(name) for one that exists once for each instruction
// set and element type: ENTRY(engine) is gpulstm_engine_avx2_f32.
#pragma once

#ifdef _WIN32
#define EXPORTED extern "C" __declspec(dllexport)
#else
#define EXPORTED extern "C" __attribute__((visibility("default")))
#endif

#define JOINED(name, isa, real) gpulstm_##name##_##isa##_##real
#define EXPANDED(name, isa, real) JOINED(name, isa, real)
#define ENTRY(name) EXPANDED(name, GPULSTM_ISA, REAL_NAME)
