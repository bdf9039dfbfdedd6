#include "store/host.h"

#include <link.h>

#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include "store/sha256.h"

namespace flashpoint::store {
namespace {

#if defined(__x86_64__)
enum class Register { eax, ebx, ecx, edx };

bool has_bit(unsigned leaf, unsigned subleaf, Register place, int bit) {
  unsigned values[4] = {};
  return __get_cpuid_count(leaf, subleaf, &values[0], &values[1], &values[2], &values[3]) != 0 &&
         (values[static_cast<int>(place)] >> bit & 1) != 0;
}
#endif

struct Search {
  uintptr_t inside;  // an address of the object that is looked for
  std::string id;
};

void find_note(const char* at, size_t size, std::string& id) {
  while (size >= sizeof(ElfW(Nhdr))) {
    ElfW(Nhdr) note;
    std::memcpy(&note, at, sizeof note);
    const size_t name = (size_t{note.n_namesz} + 3) & ~size_t{3};
    const size_t whole = sizeof note + name + ((size_t{note.n_descsz} + 3) & ~size_t{3});
    if (whole > size) return;
    if (note.n_type == NT_GNU_BUILD_ID && note.n_namesz == 4 &&
        std::memcmp(at + sizeof note, "GNU", 4) == 0) {
      id = hex(reinterpret_cast<const uint8_t*>(at) + sizeof note + name, note.n_descsz);
      return;
    }
    at += whole;
    size -= whole;
  }
}

int visit(dl_phdr_info* info, size_t, void* argument) {
  auto& search = *static_cast<Search*>(argument);
  bool ours = false;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    const uintptr_t begin = info->dlpi_addr + header.p_vaddr;
    ours |= header.p_type == PT_LOAD && search.inside >= begin && search.inside < begin + header.p_memsz;
  }
  if (!ours) return 0;
  for (int i = 0; i < info->dlpi_phnum && search.id.empty(); ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_NOTE) continue;
    // The loader gives addresses as numbers.
    const auto* note =
        reinterpret_cast<const char*>(info->dlpi_addr + header.p_vaddr);  // NOLINT(performance-no-int-to-ptr)
    find_note(note, header.p_memsz, search.id);
  }
  return 1;
}

}  // namespace

const std::vector<std::string>& cpu_features() {
  static const std::vector<std::string> features = [] {
    std::vector<std::string> found;
#if defined(__x86_64__)
    // Not __builtin_cpu_supports by name: compilers differ in the names they know.
#define X(name, leaf, subleaf, reg, bit, system)                                     \
  if (has_bit(leaf, subleaf, Register::reg, bit) && __builtin_cpu_supports(#system)) \
    found.emplace_back(#name);
#include "store/cpu_features.def"
#undef X
#endif
    return found;
  }();
  return features;
}

const std::string& build_id() {
  static const std::string id = [] {
    Search search{reinterpret_cast<uintptr_t>(&build_id), {}};
    dl_iterate_phdr(visit, &search);
    return search.id;
  }();
  return id;
}

}  // namespace flashpoint::store
