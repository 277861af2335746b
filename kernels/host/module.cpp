// Lets Python import the library as a module. The module is empty: gpulstm/engine.py calls the C interface by ctypes.
#if __has_include(<Python.h>) // without Python's headers the library still works
#include <Python.h>

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_engine", "gpulstm's engine; see gpulstm/engine.py", 0,
                             nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__engine(void)
{
    return PyModuleDef_Init(&module);
}
#endif
