// Delivery of one event pair to the observer, and the storage of tags.
//
// `after` goes to the observer that saw `before`, and only while it is still the thread's observer. A C++
// exception from an observer ends its recording: it is counted, and the frame goes on without it.
// GIL held; the frame's thread.
#pragma once

#include "py/internal.h"

#include "eval/thread_context.h"

namespace flashpoint {

struct EventPair {
  Observer* observer = nullptr;  // who saw `before`; null: nobody watches
  Pending pending;
  uint64_t serial = 0;  // of that observer: another one may have taken its place in memory
};

EventPair begin_event(ThreadContext& context, EvalFrame& frame, const Operands& operands);
Tag end_event(ThreadContext& context, EvalFrame& frame, const Operands& operands, const EventPair& pair,
              PyObject* result);
bool has_tags(const Tag* tags, int count);
// Whether one of every `step` slots has a tag, or is a tuple or dict.
bool shows_as_built(PyObject* const* slots, const Tag* tags, int count, int step);
Tag tag_of_built(ThreadContext& context, EvalFrame& frame, PyObject* made, PyObject* const* slots,
                 const Tag* tags, int count);
// enter_frame, with the error that is being thrown into a generator (if any) put aside.
PyObject* begin_frame(ThreadContext& context, EvalFrame& frame);
void end_frame(ThreadContext& context, EvalFrame& frame, Observer* observer, PyObject* result);

// Tags of the frames of one thread: a stack, released in the reverse order of allocation.
Tag* allocate_tags(size_t count);
void release_tags(Tag* tags);

}  // namespace flashpoint
