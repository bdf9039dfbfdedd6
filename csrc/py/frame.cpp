#include "py/frame.h"

extern "C" {
PyObject* fp_frame_globals(_PyInterpreterFrame* f);
PyObject* fp_frame_locals(_PyInterpreterFrame* f);
PyObject* fp_frame_builtins(_PyInterpreterFrame* f);
PyObject* fp_frame_function(_PyInterpreterFrame* f);
PyCodeObject* fp_frame_code(_PyInterpreterFrame* f);
int fp_frame_instruction(_PyInterpreterFrame* f);
void fp_set_frame_instruction(_PyInterpreterFrame* f, int offset);
PyObject* fp_frame_local(_PyInterpreterFrame* f, int i);
PyObject** fp_frame_slots(_PyInterpreterFrame* f);
}

namespace flashpoint::py {

PyObject* frame_globals(_PyInterpreterFrame* f) { return fp_frame_globals(f); }
PyObject* frame_locals(_PyInterpreterFrame* f) { return fp_frame_locals(f); }
PyObject* frame_builtins(_PyInterpreterFrame* f) { return fp_frame_builtins(f); }
PyObject* frame_function(_PyInterpreterFrame* f) { return fp_frame_function(f); }
PyCodeObject* frame_code(_PyInterpreterFrame* f) { return fp_frame_code(f); }
int frame_instruction(_PyInterpreterFrame* f) { return fp_frame_instruction(f); }
PyObject* frame_local(_PyInterpreterFrame* f, int i) { return fp_frame_local(f, i); }
PyObject** frame_slots(_PyInterpreterFrame* f) { return fp_frame_slots(f); }
void set_frame_instruction(_PyInterpreterFrame* f, int offset) { fp_set_frame_instruction(f, offset); }
int frame_line(_PyInterpreterFrame* f) {
  const int line = PyCode_Addr2Line(fp_frame_code(f), fp_frame_instruction(f));
  return line < 0 ? 0 : line;
}

}  // namespace flashpoint::py
