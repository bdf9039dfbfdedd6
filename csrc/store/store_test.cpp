#include "store/store.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include "unit.h"

namespace flashpoint::store {
namespace {

class Folder {
 public:
  Folder() { EXPECT(mkdtemp(path_) != nullptr); }
  ~Folder() {
    for (const char* name : {"-wal", "-shm", ""}) unlink((path() + "/" + database_name() + name).c_str());
    for (const char* name : {"/lock", "/file"}) unlink((path() + name).c_str());
    rmdir(path_);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path() const { return path_; }

 private:
  char path_[32] = "/tmp/flashpoint-store-XXXXXX";
};

Options in(const Folder& folder) {
  Options options;
  options.directory = folder.path();
  return options;
}

KeyParts key(int number) { return {{"code", "f" + std::to_string(number)}}; }
std::string payload(int number) { return std::string(static_cast<size_t>(number * 50), 'a' + number % 26); }

TEST(a_store_finds_what_was_put) {
  const Folder folder;
  {
    Store store(in(folder));
    EXPECT(store.get(key(1)).outcome == Outcome::k_absent);
    EXPECT(store.put(key(1), payload(1)) == Outcome::k_queued);
    EXPECT(store.get(key(1)).payload == payload(1));
  }
  Store store(in(folder));
  const Found found = store.get(key(1));
  EXPECT(found.outcome == Outcome::k_hit && found.payload == payload(1) && found.layer == Layer::kUser);
}

// For the thread sanitizer above all.
TEST(threads_and_forks_share_a_store) {
  const Folder folder;
  Store store(in(folder));
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  threads.reserve(4);
  for (int seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      for (int step = seed; !stop; ++step) {
        const int number = step % 20;
        store.put(key(number), payload(number));
        const Found found = store.get(key(number));
        if (found.outcome != Outcome::k_hit || found.payload != payload(number)) ++wrong;
        if (step % 10 == 0) store.flush(5000);
        if (step % 17 == 0) store.nearest(key(number));
        if (step % 23 == 0) store.statistics();
        uint64_t count = 0;
        if (seed == 0 && step % 50 == 0) store.save(folder.path() + "/file", "secret", count);
      }
    });
  }
  for (int round = 0; round < 10; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      store.put(key(30), payload(30));
      const bool good = store.flush(10000) && store.get(key(30)).payload == payload(30);
      _exit(good ? 0 : 1);
    }
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT(status == 0);
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT(wrong == 0);
  EXPECT(store.flush(10000) && store.get(key(30)).payload == payload(30));
  Outcome database;
  for (const Listed& row : store.verify(database)) EXPECT(row.outcome == Outcome::k_hit);
  EXPECT(database == Outcome::k_hit);
}

}  // namespace
}  // namespace flashpoint::store
