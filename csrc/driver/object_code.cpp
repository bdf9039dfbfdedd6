#include "driver/object_code.h"

#include "backend/native/jit.h"
#include "driver/recordings.h"
#include "store/host.h"
#include "store/store.h"

namespace flashpoint {

namespace {

class StoredObjects : public native::ObjectStore {
 public:
  std::string find(const std::string& kernels) override {
    if (!usable()) return {};
    store::Found found = store::Store::shared().get(key_of(kernels));
    const bool ours = found.origin == store::Origin::kOwn || found.origin == store::Origin::kSigned;
    return found.outcome == store::Outcome::k_hit && ours ? std::move(found.payload) : std::string();
  }

  void keep(const std::string& kernels, std::string_view object) override {
    if (usable()) store::Store::shared().put(key_of(kernels), std::string(object));
  }

 private:
  static bool usable() {
    return recordings_enabled() && !store::build_id().empty() && store::Store::shared().options().enabled;
  }

  static store::KeyParts key_of(const std::string& kernels) {
    return {{"kind", "object code"},
            {"kernels", store::hex(store::sha256(kernels))},
            {"target", native::target_description()},
            {"build", store::build_id()}};
  }
};

}  // namespace

void install_object_store() {
  static StoredObjects objects;
  native::set_object_store(&objects);
}

}  // namespace flashpoint
