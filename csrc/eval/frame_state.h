// The state of a running frame as data: read at a break, written when an entry restores or patches it.
//
// A frame's slots are its localsplus array followed by its value stack. Positions count code units from the
// start of the code. A frame in the middle of a call has the call's operands on its stack until the call is
// done; they are not part of its state. A frame that runs a generator on (FOR_ITER, SEND) does that
// instruction again once it is restored.
//
// GIL: required; frames belong to the calling thread.
#pragma once

#include <Python.h>

#include <vector>

#include "record/observer.h"

namespace flashpoint {

// The instruction being performed can be performed again from its start: nothing of it was done, and its
// prefixes are found. Gives the position to start at, or -1.
int restart_position(const EvalFrame& frame, const Operands& operands);
// The position of the call in progress, or -1 when the instruction is none that a frame can be restored in.
int call_position(const EvalFrame& frame);
// The position of the next instruction of a frame that stands at a boundary.
int boundary_position(const EvalFrame& frame);

// Whether an instruction, or the first of its prefixes, starts at this code unit.
bool is_instruction(PyCodeObject* code, int at);

// Whether instructions take what lies in this slot of localsplus for a cell.
bool holds_cell(PyCodeObject* code, size_t slot);
// Whether start_frame() makes one that can be restored.
bool can_make_frame(PyCodeObject* code);

// Slots without the operands of the instruction in progress; borrowed, null for empty ones.
std::vector<PyObject*> frame_slots(const EvalFrame& frame, bool in_call);
// Adds what the frame holds a reference to, once for each, and what C code holds for its call in progress.
// callee: the frame that the call runs, null for a frame that stands at a boundary.
void add_references(const EvalFrame& frame, const EvalFrame* callee, std::vector<PyObject*>* references);
// One slot of a frame that stands at a boundary; borrowed.
PyObject* frame_slot(const EvalFrame& frame, size_t i);

// Replaces all slots (new references, taken over) and the position. The frame must stand at a boundary.
void write_frame(EvalFrame& frame, std::vector<PyObject*> slots, int position);

// Drops what lies on the value stack. Whoever runs a generator on puts a value there, for which there has to
// be room.
void clear_stack(EvalFrame& frame);

// Calls the function with as many arguments as it takes, so that a frame of it starts; the frame is then
// restored, and none of the arguments is ever seen. A new reference or null.
PyObject* start_frame(PyObject* function);

// Another observer than the last watches the frame from here on: its tags are cleared, or are its own.
void take_tags(EvalFrame& frame, const Observer& observer);

// One that can be made by start_frame, or that of a generator.
bool is_plain_frame(const EvalFrame& frame);

}  // namespace flashpoint
