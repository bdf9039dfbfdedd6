/* CPython's internal headers are C; this file is the C side of frame.h. */
#define Py_BUILD_CORE 1
#include <Python.h>
#include <internal/pycore_frame.h>

PyObject* fp_frame_globals(struct _PyInterpreterFrame* f) { return f->f_globals; }
PyObject* fp_frame_locals(struct _PyInterpreterFrame* f) { return f->f_locals; }
PyObject* fp_frame_builtins(struct _PyInterpreterFrame* f) { return f->f_builtins; }
PyObject* fp_frame_function(struct _PyInterpreterFrame* f) { return (PyObject*)f->f_func; }
PyCodeObject* fp_frame_code(struct _PyInterpreterFrame* f) { return f->f_code; }
int fp_frame_instruction(struct _PyInterpreterFrame* f) {
  return (int)(_PyInterpreterFrame_LASTI(f) * sizeof(_Py_CODEUNIT));
}
void fp_set_frame_instruction(struct _PyInterpreterFrame* f, int offset) {
  f->prev_instr = _PyCode_CODE(f->f_code) + offset / (int)sizeof(_Py_CODEUNIT);
}
PyObject** fp_frame_slots(struct _PyInterpreterFrame* f) { return f->localsplus; }
PyObject* fp_frame_local(struct _PyInterpreterFrame* f, int i) { return f->localsplus[i]; }
