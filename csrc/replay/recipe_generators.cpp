// Recipes of generators, and effects on those that existed before.
//
// One that was made in the recording and is suspended, or has not started, is its function, its slots and its
// position. One whose frame runs on behind the break is made without having started: the frame gets its slots
// when it is restored. What is weakly referred to, or whose frame object someone has, keeps its identity, and
// there is no recipe for that.
#include "py/generators.h"
#include "record/recorder.h"
#include "replay/recipe.h"

namespace flashpoint {

namespace {

RecipeValue constant(Ref value) { return {RecipeValue::Kind::kConstant, 0, std::move(value)}; }
RecipeValue number(long value) { return constant(Ref::steal(PyLong_FromLong(value))); }
int number_of(const RecipeValue& value) { return static_cast<int>(PyLong_AsLong(value.constant.get())); }

// items of a recipe: name, qualified name, phase, position, function or code, then the slots.
constexpr size_t kFirstSlot = 5;
// items of an effect: phase, position, then the slots.
constexpr size_t kFirstSlotOfEffect = 2;

bool build_slots(BuildContext& c, const std::vector<RecipeValue>& items, size_t first,
                 std::vector<Ref>& slots) {
  slots.resize(items.size() - first);
  for (size_t i = first; i < items.size(); ++i) {
    if (!build_slot(c, items[i], &slots[i - first])) return false;
  }
  return true;
}

std::vector<PyObject*> released(std::vector<Ref>& slots) {
  std::vector<PyObject*> values;
  values.reserve(slots.size());
  for (Ref& slot : slots) values.push_back(slot.release());
  return values;
}

}  // namespace

RecipeValue RecipeWriter::describe_generator(PyObject* o) {
  if (!py::is_generator(o)) return fail(o, "no plain generator");
  if (py::has_generator_weakrefs(o)) return fail(o, "there are weak references to it");
  if (py::is_generator_frame_seen(o)) return fail(o, "its frame was asked for");
  if (py::generator_phase(o) != py::GeneratorPhase::kFinished && !py::has_function_of_its_code(o))
    return fail(o, "its function was given other code");
  const py::GeneratorPhase phase = py::generator_phase(o);
  const int32_t index = begin(o, MadeObject::Kind::kGenerator);
  std::vector<RecipeValue> items{constant(Ref::share(py::generator_name(o))),
                                 constant(Ref::share(py::generator_qualname(o))),
                                 number(static_cast<long>(phase))};
  if (phase == py::GeneratorPhase::kFinished) {
    items.push_back(number(0));
    items.push_back(constant(Ref::share(reinterpret_cast<PyObject*>(py::generator_code(o)))));
  } else {
    items.push_back(number(py::generator_position(o)));
    items.push_back(describe(py::generator_function(o)));
    if (phase != py::GeneratorPhase::kRunning) {
      for (PyObject* slot : py::generator_slots(o))
        items.push_back(slot == nullptr ? RecipeValue{} : describe(slot));
    }
  }
  made_[index].items = std::move(items);
  return {RecipeValue::Kind::kMade, index, Ref()};
}

// False where its frame runs on behind the break.
bool RecipeWriter::describe_generator_end(PyObject* o, PlannedEffect& effect) {
  const py::GeneratorPhase phase = py::generator_phase(o);
  if (phase == py::GeneratorPhase::kRunning) return false;
  if (py::is_generator_frame_seen(o)) {
    fail(o, "its frame was asked for");
    return true;
  }
  effect.items.push_back(number(static_cast<long>(phase)));
  if (phase == py::GeneratorPhase::kFinished) return true;
  effect.items.push_back(number(py::generator_position(o)));
  for (PyObject* slot : py::generator_slots(o))
    effect.items.push_back(slot == nullptr ? RecipeValue{} : describe(slot));
  return true;
}

PyObject* build_generator(BuildContext& c, const MadeObject& m, int32_t index) {
  PyObject* name = m.items[0].constant.get();
  PyObject* qualname = m.items[1].constant.get();
  const auto phase = static_cast<py::GeneratorPhase>(number_of(m.items[2]));
  if (phase == py::GeneratorPhase::kFinished)
    return py::make_finished_generator(m.items[4].constant.get(), name, qualname);
  Ref function = Ref::steal(build(c, m.items[4]));
  Ref generator = Ref::steal(function ? py::make_generator(function.get(), name, qualname) : nullptr);
  if (!generator || phase == py::GeneratorPhase::kRunning) return generator.release();
  c.made[index] = generator;  // before its slots, which may hold the generator itself
  std::vector<Ref> slots;
  if (!build_slots(c, m.items, kFirstSlot, slots)) return nullptr;
  py::write_generator(generator.get(), released(slots), number_of(m.items[3]),
                      phase == py::GeneratorPhase::kSuspended);
  return generator.release();
}

bool commit_generator(BuildContext& c, const PlannedEffect& e) {
  PyObject* generator = c.nodes[e.owner];
  const auto phase = static_cast<py::GeneratorPhase>(number_of(e.items[0]));
  const bool finished = phase == py::GeneratorPhase::kFinished;
  const bool runs = py::generator_phase(generator) == py::GeneratorPhase::kRunning;
  const int position = finished ? 0 : number_of(e.items[1]);
  std::vector<Ref> slots;
  if (!finished && !build_slots(c, e.items, kFirstSlotOfEffect, slots)) return false;
  if (runs) {
    c.stack->generators.push_back({Ref::share(generator), std::move(slots), position, finished});
    return true;
  }
  if (finished) return py::finish_generator(generator);
  py::write_generator(generator, released(slots), position, phase == py::GeneratorPhase::kSuspended);
  return true;
}

}  // namespace flashpoint
