#include "eval/events.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <vector>

#include "base/counters.h"
#include "eval/evaluate.h"

namespace flashpoint {
namespace {

constexpr size_t kChunkTags = 16 * 1024;

struct TagChunk {
  std::unique_ptr<Tag[]> tags;
  size_t size = 0;
  size_t used = 0;
};

struct TagStack {
  std::vector<TagChunk> chunks;
  size_t current = 0;
};

thread_local TagStack tag_stack;

void drop_observer(ThreadContext& context) {
  counters().internal_errors++;
  context.observer = nullptr;
}

}  // namespace

EventPair begin_event(ThreadContext& context, EvalFrame& frame, const Operands& operands) {
  EventPair pair;
  Observer* observer = context.observer;
  if (observer == nullptr) return pair;
  try {
    pair.pending = observer->before(frame, operands);
    if (!pair.pending.done) pair.observer = observer;
    pair.serial = observer->serial;
  } catch (const std::exception&) {
    drop_observer(context);
  }
  return pair;
}

Tag end_event(ThreadContext& context, EvalFrame& frame, const Operands& operands, const EventPair& pair,
              PyObject* result) {
  try {
    Tag kept = 0;
    if (frame.tag_returned) {
      frame.tag_returned = false;
      if (context.observer != nullptr && result != nullptr) kept = context.observer->returned(frame, result);
    }
    if (pair.observer == nullptr || context.observer != pair.observer || pair.observer->serial != pair.serial)
      return kept;
    const Tag tag = pair.observer->after(frame, operands, pair.pending, result);
    return kept != 0 ? kept : tag;
  } catch (const std::exception&) {
    drop_observer(context);
    return 0;
  }
}

bool has_tags(const Tag* tags, int count) {
  return std::any_of(tags, tags + count, [](Tag tag) { return tag != 0; });
}

bool shows_as_built(PyObject* const* slots, const Tag* tags, int count, int step) {
  for (int i = 0; i < count; i += step) {
    PyObject* const part = slots[i];
    if (tags[i] != 0 || (part != nullptr && (PyTuple_CheckExact(part) || PyDict_CheckExact(part))))
      return true;
  }
  return false;
}

Tag tag_of_built(ThreadContext& context, EvalFrame& frame, PyObject* made, PyObject* const* slots,
                 const Tag* tags, int count) {
  if (context.observer == nullptr || !has_tags(tags, count < 0 ? -count : count)) return 0;
  try {
    return context.observer->built(frame, made, slots, tags, count);
  } catch (const std::exception&) {
    drop_observer(context);
    return 0;
  }
}

PyObject* begin_frame(ThreadContext& context, EvalFrame& frame) {
  PyObject *type = nullptr, *value = nullptr, *traceback = nullptr;
  const bool raised = _PyThreadState_GET()->curexc_type != nullptr;
  if (raised) PyErr_Fetch(&type, &value, &traceback);
  PyObject* answer = nullptr;
  try {
    answer = context.observer->enter_frame(frame);
  } catch (const std::exception&) {
    drop_observer(context);
  }
  if (raised || _PyThreadState_GET()->curexc_type != nullptr) PyErr_Restore(type, value, traceback);
  return answer;
}

void end_frame(ThreadContext& context, EvalFrame& frame, Observer* observer, PyObject* result) {
  if (observer == nullptr || context.observer != observer) return;
  try {
    observer->leave_frame(frame, result);
  } catch (const std::exception&) {
    drop_observer(context);
  }
}

void report_unsupported(ThreadContext& context, _PyInterpreterFrame* frame, int opcode) {
  if (context.observer == nullptr) return;
  EvalFrame eval_frame{frame, context.top};
  eval_frame.stack_pointer = _PyFrame_GetStackPointer(frame);
  eval_frame.tags = allocate_tags(frame->f_code->co_nlocalsplus + frame->f_code->co_stacksize + 1);
  // A frame that throw() resumes starts with an error set; observers never see one in `before`.
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  begin_event(context, eval_frame, {.event = Event::kUnsupported, .detail = opcode});
  PyErr_Restore(type, value, traceback);
  release_tags(eval_frame.tags);
}

void flush_instruction_count(ThreadContext& context) {
  counters().instructions += context.instructions;
  // A pending test stop is relative to the count that restarts here.
  if (context.hand_over_at != ~uint64_t{0}) context.hand_over_at -= context.instructions;
  context.instructions = 0;
}

Tag* allocate_tags(size_t count) {
  TagStack& stack = tag_stack;
  while (stack.current < stack.chunks.size()) {
    TagChunk& chunk = stack.chunks[stack.current];
    if (chunk.size - chunk.used >= count) break;
    stack.current++;
  }
  if (stack.current == stack.chunks.size()) {
    const size_t size = count > kChunkTags ? count : kChunkTags;
    stack.chunks.push_back({std::make_unique<Tag[]>(size), size, 0});
  }
  TagChunk& chunk = stack.chunks[stack.current];
  Tag* tags = chunk.tags.get() + chunk.used;
  chunk.used += count;
  std::memset(tags, 0, count * sizeof(Tag));
  return tags;
}

void release_tags(Tag* tags) {
  TagStack& stack = tag_stack;
  for (;;) {
    TagChunk& chunk = stack.chunks[stack.current];
    Tag* start = chunk.tags.get();
    if (tags >= start && tags < start + chunk.size) {
      chunk.used = static_cast<size_t>(tags - start);
      return;
    }
    chunk.used = 0;
    stack.current--;
  }
}

}  // namespace flashpoint
