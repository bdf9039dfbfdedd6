// Generators as data: what a suspended one will go on with, and how one is made, moved on and finished from
// outside. Only those of Python generator functions; coroutines and async generators are none.
//
// A generator's slots are its localsplus array, its value stack, and last the exception that it is handling
// (empty for none). Positions count code units from the start of the code.
//
// GIL: required. Reads run no Python code; writes may, where they drop the last reference to something.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

#include "py/ref.h"

struct _PyInterpreterFrame;

namespace flashpoint::py {

enum class GeneratorPhase : uint8_t { kCreated, kSuspended, kRunning, kFinished };

bool is_generator(PyObject* object);
GeneratorPhase generator_phase(PyObject* generator);
PyCodeObject* generator_code(PyObject* generator);
PyObject* generator_name(PyObject* generator);
PyObject* generator_qualname(PyObject* generator);
// Someone other than the generator has its frame object, or refers to it weakly.
bool is_generator_frame_seen(PyObject* generator);
bool has_generator_weakrefs(PyObject* generator);

// Not of finished ones. Borrowed; the slots' values may be null, and of one that is running there are none.
PyObject* generator_function(PyObject* generator);
// It has not been given other code since the generator was made.
bool has_function_of_its_code(PyObject* generator);
int generator_position(PyObject* generator);
std::vector<PyObject*> generator_slots(PyObject* generator);
PyObject* generator_slot(PyObject* generator, int32_t i);
// What a guard compares: phase, code, position, number of slots, which of them are empty. Null with an error
// set.
Ref generator_state(PyObject* generator);
bool generator_state_is(PyObject* object, PyObject* state);
// The generator whose frame it is; borrowed, null for others.
PyObject* generator_of(const _PyInterpreterFrame* frame);
// It is suspended where closing it runs something: inside a try or with block.
bool closes_noticeably(PyObject* generator);
// It may yet be: it has not ended, and its code has such blocks.
bool may_close_noticeably(PyObject* generator);
bool is_generator_running(PyObject* generator);

// A generator that has not started. New reference, or null with an error set.
PyObject* make_generator(PyObject* function, PyObject* name, PyObject* qualname);
// One that has ended, of the code. New reference, or null with an error set.
PyObject* make_finished_generator(PyObject* code, PyObject* name, PyObject* qualname);
// Of one that is not running. Takes the references over.
void write_generator(PyObject* generator, std::vector<PyObject*> slots, int position, bool started);
// What it is handling, of a running one.
PyObject* generator_handled(PyObject* generator);
void set_generator_handled(PyObject* generator, Ref exception);
// Raises StopIteration with the value.
void set_stop_iteration(PyObject* value);
// Ends one that is suspended without running any of its code but its last instruction.
bool finish_generator(PyObject* generator);
bool can_finish(PyCodeObject* code);
// A running one whose frame is about to be left as if it had yielded.
void suspend_generator(PyObject* generator);

}  // namespace flashpoint::py
