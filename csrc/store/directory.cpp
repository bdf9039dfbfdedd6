#include "store/directory.h"

#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <vector>

namespace flashpoint::store {
namespace {

bool others_may_write(const struct stat& info) { return (info.st_mode & (S_IWGRP | S_IWOTH)) != 0; }

bool make_directories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (mkdir(part.c_str(), 0700) != 0 && errno != EEXIST) {
      struct stat info;  // a file system may answer otherwise for a directory that is there (read-only)
      if (stat(part.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return false;
    }
    if (end == std::string::npos) return true;
  }
}

std::string home() {
  const char* set = std::getenv("HOME");
  if (set != nullptr && set[0] == '/') return set;
  std::vector<char> buffer(1 << 14);
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(geteuid(), &entry, buffer.data(), buffer.size(), &found) != 0 || found == nullptr) return {};
  return found->pw_dir == nullptr ? std::string() : found->pw_dir;
}

}  // namespace

std::string default_directory() {
  const char* chosen = std::getenv("FLASHPOINT_CACHE_DIR");
  if (chosen != nullptr && chosen[0] != '\0') return chosen;
  const char* caches = std::getenv("XDG_CACHE_HOME");
  if (caches != nullptr && caches[0] == '/') return std::string(caches) + "/flashpoint";
  const std::string start = home();
  return start.empty() ? start : start + "/.cache/flashpoint";
}

Outcome prepare_directory(const std::string& path) {
  if (path.empty()) return Outcome::k_no_directory;
  struct stat info;
  if (stat(path.c_str(), &info) != 0) {
    if (!make_directories(path) || stat(path.c_str(), &info) != 0) return Outcome::k_no_directory;
  }
  const bool fit = S_ISDIR(info.st_mode) && info.st_uid == geteuid() && !others_may_write(info);
  return fit ? Outcome::k_hit : Outcome::k_directory_refused;
}

Outcome check_file(const std::string& path, bool or_root) {
  struct stat info;
  if (lstat(path.c_str(), &info) != 0) return errno == ENOENT ? Outcome::k_absent : Outcome::k_cannot_open;
  const bool owned = info.st_uid == geteuid() || (or_root && info.st_uid == 0);
  return S_ISREG(info.st_mode) && owned && !others_may_write(info) ? Outcome::k_hit : Outcome::k_file_refused;
}

}  // namespace flashpoint::store
