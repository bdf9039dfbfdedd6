#include "py/internal.h"

#include "eval/counting_observer.h"

#include "eval/thread_context.h"

namespace flashpoint {
namespace {

struct Report {
  std::map<int, long> events;
  long calls = 0;
  long frames = 0;
  long tags = 0;
  long tags_seen = 0;
  std::vector<std::string> problems;
};
Report report;

bool end_is_null(Event event) { return event == Event::kNext; }

}  // namespace

void CountingObserver::problem(const std::string& text) {
  if (problems_.size() < 20) problems_.push_back(text);
}

void CountingObserver::count_call() {
  if (end_at_ >= 0 && calls_ > end_at_) problem("called after the recording ended");
  if (calls_++ == end_at_) thread_context().observer = nullptr;
}

void CountingObserver::check_tags(const EvalFrame& frame) {
  PyObject* const* locals = frame.frame->localsplus;
  for (PyObject* const* slot = locals; slot < frame.stack_pointer; ++slot) {
    const Tag tag = frame.tags[slot - locals];
    if (tag == 0) continue;
    tags_seen_++;
    if (tag >= tagged_.size() || tagged_[tag] != *slot) {
      problem("tag " + std::to_string(tag) + " in slot " + std::to_string(slot - locals) + " of " +
              PyUnicode_AsUTF8(frame.frame->f_code->co_name) + " at " +
              std::to_string(_PyInterpreterFrame_LASTI(frame.frame)) + " belongs to another value");
    }
  }
}

Pending CountingObserver::before(EvalFrame& frame, const Operands& operands) {
  count_call();
  events_[static_cast<int>(operands.event)]++;
  check_tags(frame);
  if (PyErr_Occurred()) problem("before with an error set");
  // A frame that starts near the end of the C stack is reported without ever being entered.
  const bool entered = !open_frames_.empty() && open_frames_.back() == &frame;
  if (!entered && operands.event != Event::kUnsupported) problem("event of a frame that is not innermost");
  Pending pending;
  pending.word = static_cast<uint32_t>(open_events_.size());
  if (operands.event != Event::kUnsupported) open_events_.push_back(operands.event);
  return pending;
}

Tag CountingObserver::after(EvalFrame& frame, const Operands& operands, const Pending& pending,
                            PyObject* result) {
  count_call();
  check_tags(frame);
  if (open_events_.empty() || open_events_.back() != operands.event ||
      pending.word + 1 != open_events_.size()) {
    problem("after without its before, event " + std::to_string(static_cast<int>(operands.event)));
  }
  if (!open_events_.empty()) open_events_.resize(pending.word < open_events_.size() ? pending.word : 0);
  const bool error = PyErr_Occurred() != nullptr;
  if (result != nullptr && error) problem("result and error");
  if (result == nullptr && !error && !end_is_null(operands.event)) {
    problem("no result and no error, event " + std::to_string(static_cast<int>(operands.event)));
  }
  if (result == nullptr || operands.event == Event::kUnpack) return 0;
  if (operands.event == Event::kContains || operands.event == Event::kIs) {
    // The pushed value may be the inverse of the result.
    result = (result == Py_True) != (operands.detail != 0) ? Py_True : Py_False;
  }
  tagged_.push_back(result);
  return static_cast<Tag>(tagged_.size() - 1);
}

PyObject* CountingObserver::enter_frame(EvalFrame& frame) {
  count_call();
  frames_++;
  if (PyErr_Occurred()) problem("enter with an error set");
  if (!open_frames_.empty() && frame.caller != open_frames_.back()) problem("wrong caller");
  open_frames_.push_back(&frame);
  return nullptr;
}

void CountingObserver::leave_frame(EvalFrame& frame, PyObject* result) {
  count_call();
  if (open_frames_.empty() || open_frames_.back() != &frame) {
    problem("leave of a frame that is not innermost");
  } else {
    open_frames_.pop_back();
  }
  if ((result == nullptr) != (PyErr_Occurred() != nullptr)) problem("leave: result and error disagree");
}

void CountingObserver::publish() const {
  report = {events_, calls_, frames_, static_cast<long>(tagged_.size()) - 1, tags_seen_, problems_};
  if (end_at_ >= 0 && calls_ > end_at_) return;  // it saw the beginning only
  if (!open_frames_.empty()) report.problems.push_back("frames left open");
  if (!open_events_.empty()) report.problems.push_back("events left open");
}

PyObject* CountingObserver::last_report() {
  PyObject* events = PyDict_New();
  PyObject* problems = PyList_New(0);
  bool good = events != nullptr && problems != nullptr;
  for (const auto& [event, count] : report.events) {
    PyObject* key = PyLong_FromLong(event);
    PyObject* value = PyLong_FromLong(count);
    good = good && key != nullptr && value != nullptr && PyDict_SetItem(events, key, value) == 0;
    Py_XDECREF(key);
    Py_XDECREF(value);
  }
  for (const std::string& text : report.problems) {
    PyObject* value = PyUnicode_FromString(text.c_str());
    good = good && value != nullptr && PyList_Append(problems, value) == 0;
    Py_XDECREF(value);
  }
  PyObject* result = nullptr;
  if (good) {
    result = Py_BuildValue("{sOslslslslsO}", "events", events, "calls", report.calls, "frames", report.frames,
                           "tags", report.tags, "tags_seen", report.tags_seen, "problems", problems);
  }
  Py_XDECREF(events);
  Py_XDECREF(problems);
  return result;
}

}  // namespace flashpoint
