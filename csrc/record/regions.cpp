#include "record/regions.h"

#include <string_view>
#include <vector>

namespace flashpoint {

namespace {

struct Notes {
  uint64_t recording = 0;
  GlobalState made_in;  // the state in which the last manager was made
  std::vector<InferenceRegion> regions;
};
thread_local Notes notes;

}  // namespace

bool is_inference_region(PyObject* object) {
  return std::string_view(Py_TYPE(object)->tp_name).ends_with("_InferenceMode");
}

void begin_inference_region(uint64_t recording) {
  if (notes.recording != recording) notes = {recording, {}, {}};
  notes.made_in = GlobalState::now();
}

void note_inference_region(uint64_t recording, PyObject* manager) {
  if (notes.recording == recording) notes.regions.push_back({manager, notes.made_in});
}

void forget_inference_region(uint64_t recording, PyObject* manager) {
  if (notes.recording != recording) return;
  std::erase_if(notes.regions, [&](const InferenceRegion& region) { return region.manager == manager; });
}

bool keeps_inference_region(uint64_t recording) {
  return notes.recording == recording && !notes.regions.empty();
}

const InferenceRegion* open_inference_region(uint64_t recording) {
  return notes.recording == recording && notes.regions.size() == 1 ? &notes.regions[0] : nullptr;
}

}  // namespace flashpoint
