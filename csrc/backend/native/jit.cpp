#include "backend/native/jit.h"

#include <dlfcn.h>
#include <llvm/ADT/StringMap.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/ExecutionEngine/Orc/ObjectLinkingLayer.h>
#include <llvm/IR/LLVMContext.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Support/CommandLine.h>
#include <llvm/Support/MemoryBuffer.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Support/raw_ostream.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/TargetParser/Host.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

#include "backend/native/emit.h"
#include "base/check.h"

namespace flashpoint::native {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

[[noreturn]] void fail(const std::string& what, llvm::Error error) {
  throw InternalError("[flashpoint] " + what + ": " + llvm::toString(std::move(error)));
}

// The machine's vector extensions, or a lesser set on request.
struct Isa {
  std::string name;
  std::string cpu;
  std::string features;
  EmitTarget emit;
  bool half = false;
};

Isa choose_isa() {
  const llvm::StringMap<bool> has = llvm::sys::getHostCPUFeatures();
  const auto all = [&](std::initializer_list<const char*> names) {
    for (const char* name : names) {
      if (!has.lookup(name)) return false;
    }
    return true;
  };
  const char* wanted = std::getenv("FLASHPOINT_NATIVE_ISA");
  const std::string limit = wanted == nullptr ? "avx512" : wanted;
  Isa isa;
  const bool avx2 = all({"avx2", "fma", "f16c", "bmi2"});
  if (limit == "avx512" && avx2 && all({"avx512f", "avx512bw", "avx512dq", "avx512vl"})) {
    isa = {"avx512", llvm::sys::getHostCPUName().str(), "", {64}, true};
    for (const auto& feature : has) {
      isa.features +=
          (isa.features.empty() ? "" : ",") + std::string(feature.second ? "+" : "-") + feature.first().str();
    }
    isa.features += ",-prefer-256-bit";
  } else if (limit != "sse" && avx2) {
    isa = {"avx2", "haswell", "+avx2,+fma,+f16c,+bmi,+bmi2", {32}, true};
  } else {
    isa = {"sse", "x86-64", "", {16}, false};
  }
  return isa;
}

const Isa& isa() {
  static const Isa chosen = choose_isa();
  return chosen;
}

// Addresses of the functions that code calls, from the libtorch_cpu that is loaded.
void* library_symbol(const std::string& name) {
  static void* library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
  void* address = library == nullptr ? nullptr : dlsym(library, name.c_str());
  return address != nullptr ? address : dlsym(RTLD_DEFAULT, name.c_str());
}

class LibrarySymbols : public llvm::orc::DefinitionGenerator {
 public:
  llvm::Error tryToGenerate(llvm::orc::LookupState&, llvm::orc::LookupKind, llvm::orc::JITDylib& dylib,
                            llvm::orc::JITDylibLookupFlags,
                            const llvm::orc::SymbolLookupSet& names) override {
    llvm::orc::SymbolMap found;
    for (const auto& [name, flags] : names) {
      if (void* address = library_symbol((*name).str())) {
        found[name] = {llvm::orc::ExecutorAddr::fromPtr(address), llvm::JITSymbolFlags::Exported};
      }
    }
    return found.empty() ? llvm::Error::success()
                         : dylib.define(llvm::orc::absoluteSymbols(std::move(found)));
  }
};

ObjectStore* objects = nullptr;

using KnownCode = std::unordered_map<std::string, KernelFunction>;

// The texts of the kernels that there is no code of, each once: the name of an object that has it.
std::string missing(const std::vector<Kernel>& kernels, const KnownCode* known) {
  std::string joined;
  std::unordered_set<std::string> seen;
  for (const Kernel& kernel : kernels) {
    std::string text = kernel.text();
    if ((known != nullptr && known->count(text) != 0) || !seen.insert(text).second) continue;
    joined += text + '\n';
  }
  return joined;
}

class Compiler {
 public:
  Compiler() {
    LLVMInitializeX86TargetInfo();
    LLVMInitializeX86Target();
    LLVMInitializeX86TargetMC();
    LLVMInitializeX86AsmPrinter();
    // Measured: neither pays for itself on code that is vectorized and laid out already.
    const char* options[] = {"flashpoint", "-disable-lsr", "-enable-misched=false"};
    llvm::cl::ParseCommandLineOptions(3, options, "", &llvm::errs());
    const std::string triple = llvm::sys::getProcessTriple();
    std::string error;
    const llvm::Target* target = llvm::TargetRegistry::lookupTarget(triple, error);
    if (target == nullptr) throw InternalError("[flashpoint] no code generator: " + error);
    llvm::TargetOptions target_options;
    machine_.reset(target->createTargetMachine(triple, isa().cpu, isa().features, target_options,
                                               llvm::Reloc::PIC_, llvm::CodeModel::Small,
                                               llvm::CodeGenOptLevel::Less, true));
    auto jit = llvm::orc::LLJITBuilder()
                   .setObjectLinkingLayerCreator(
                       [](llvm::orc::ExecutionSession& session,
                          const llvm::Triple&) -> llvm::Expected<std::unique_ptr<llvm::orc::ObjectLayer>> {
                         return std::make_unique<llvm::orc::ObjectLinkingLayer>(session);
                       })
                   .create();
    if (!jit) fail("starting the JIT", jit.takeError());
    jit_ = std::move(*jit);
  }

  std::vector<KernelFunction> compile(const std::vector<Kernel>& kernels, CompileStats& stats,
                                      const StoredObject& stored) {
    std::vector<KernelFunction> result(kernels.size());
    std::vector<std::string> texts;
    std::vector<const Kernel*> fresh;
    std::unordered_set<std::string> in_module;
    for (const Kernel& kernel : kernels) {
      texts.push_back(kernel.text());
      if (known_.count(texts.back()) != 0 || !in_module.insert(texts.back()).second) {
        ++stats.reused;
        continue;
      }
      fresh.push_back(&kernel);
    }
    if (!fresh.empty()) {
      const auto look = Clock::now();
      const std::string joined = missing(kernels, &known_);
      if (!stored.object.empty() && stored.kernels == joined && link(stored.object, fresh)) {
        stats.loaded += static_cast<int>(fresh.size());
        stats.reused += static_cast<int>(fresh.size());
        stats.link_ms += ms_since(look);
      } else {
        const std::string object = generate(fresh, stats);
        const auto start = Clock::now();
        if (!link(object, fresh)) throw InternalError("[flashpoint] linking generated code: " + why_);
        stats.link_ms += ms_since(start);
        stats.compiled += static_cast<int>(fresh.size());
        if (objects != nullptr) objects->keep(joined, object);
      }
    }
    for (size_t i = 0; i < kernels.size(); ++i) result[i] = known_.at(texts[i]);
    return result;
  }

  bool knows(const Kernel& kernel) const { return known_.count(kernel.text()) != 0; }
  const KnownCode& known() const { return known_; }

  std::unique_ptr<llvm::Module> make_module(llvm::LLVMContext& context) const {
    auto module = std::make_unique<llvm::Module>("flashpoint", context);
    module->setTargetTriple(machine_->getTargetTriple().str());
    module->setDataLayout(machine_->createDataLayout());
    return module;
  }

 private:
  static void check(const llvm::Module& module) {
    std::string text;
    llvm::raw_string_ostream out(text);
    if (llvm::verifyModule(module, &out))
      throw InternalError("[flashpoint] generated IR is malformed: " + text);
  }

  std::string generate(const std::vector<const Kernel*>& kernels, CompileStats& stats) {
    const auto start = Clock::now();
    llvm::LLVMContext context;
    auto module = make_module(context);
    for (size_t i = 0; i < kernels.size(); ++i) emit_kernel(*module, *kernels[i], symbol(i), isa().emit);
    if (strict_mode()) check(*module);
    stats.emit_ms += ms_since(start);
    const auto emitted = Clock::now();
    llvm::SmallVector<char, 0> object;
    llvm::raw_svector_ostream stream(object);
    llvm::legacy::PassManager passes;
    if (machine_->addPassesToEmitFile(passes, stream, nullptr, llvm::CodeGenFileType::ObjectFile, true)) {
      throw InternalError("[flashpoint] the target cannot emit objects");
    }
    passes.run(*module);
    stats.codegen_ms += ms_since(emitted);
    return {object.data(), object.size()};
  }

  // The same names in every process; each object has a library of its own.
  static std::string symbol(size_t index) { return "kernel" + std::to_string(index); }

  // False, with why_, if the object has not the kernels' code.
  bool link(const std::string& object, const std::vector<const Kernel*>& kernels) {
    const auto failed = [&](llvm::Error error) {
      why_ = llvm::toString(std::move(error));
      return false;
    };
    auto library = jit_->createJITDylib("object" + std::to_string(++serial_));
    if (!library) return failed(library.takeError());
    library->addGenerator(std::make_unique<LibrarySymbols>());
    if (auto error = jit_->addObjectFile(*library, llvm::MemoryBuffer::getMemBufferCopy(object)))
      return failed(std::move(error));
    std::vector<KernelFunction> functions;
    for (size_t i = 0; i < kernels.size(); ++i) {
      auto address = jit_->lookup(*library, symbol(i));
      if (!address) return failed(address.takeError());
      functions.push_back(address->toPtr<KernelFunction>());
    }
    for (size_t i = 0; i < kernels.size(); ++i) known_[kernels[i]->text()] = functions[i];
    return true;
  }

  std::unique_ptr<llvm::TargetMachine> machine_;
  std::unique_ptr<llvm::orc::LLJIT> jit_;
  KnownCode known_;
  int serial_ = 0;
  std::string why_;
};

std::mutex& compiler_mutex() {
  static auto* mutex = new std::mutex();
  return *mutex;
}

bool compiler_started = false;

Compiler& compiler() {
  static auto* instance = new Compiler();  // its code outlives every static destructor
  compiler_started = true;
  return *instance;
}

}  // namespace

StoredObject find_stored(const std::vector<Kernel>& kernels) {
  StoredObject found;
  ObjectStore* store;
  {
    const std::lock_guard<std::mutex> lock(compiler_mutex());
    store = objects;
    // Not starting the compiler, which takes milliseconds, to find that there is nothing.
    if (store != nullptr) found.kernels = missing(kernels, compiler_started ? &compiler().known() : nullptr);
  }
  // Without the lock: a store may ask Python, and a thread that has the GIL may wait for the lock.
  if (!found.kernels.empty()) found.object = store->find(found.kernels);
  return found;
}

std::vector<KernelFunction> compile_kernels(const std::vector<Kernel>& kernels, CompileStats* stats,
                                            const StoredObject* stored) {
  StoredObject found;
  if (stored == nullptr || stored->object.empty()) found = find_stored(kernels);
  const std::lock_guard<std::mutex> lock(compiler_mutex());
  CompileStats ignored;
  return compiler().compile(kernels, stats != nullptr ? *stats : ignored,
                            found.object.empty() && stored != nullptr ? *stored : found);
}

double compile_milliseconds(const std::vector<Kernel>& kernels) {
  constexpr double kStart = 25;  // of the code generator: once in a process
  constexpr double kKernel = 4;
  const std::lock_guard<std::mutex> lock(compiler_mutex());
  double result = compiler_started ? 0 : kStart;
  for (const Kernel& kernel : kernels) {
    if (!compiler_started || !compiler().knows(kernel)) result += kKernel;
  }
  return result;
}

void set_object_store(ObjectStore* store) {
  const std::lock_guard<std::mutex> lock(compiler_mutex());
  objects = store;
}

std::string target_description() {
  return "LLVM " LLVM_VERSION_STRING " " + isa().name + " " + isa().cpu + " " + isa().features;
}

const std::string& target_isa() { return isa().name; }
bool has_half_conversions() { return isa().half; }

std::string llvm_text(const Kernel& kernel) {
  const std::lock_guard<std::mutex> lock(compiler_mutex());
  llvm::LLVMContext context;
  auto module = compiler().make_module(context);
  emit_kernel(*module, kernel, "kernel", isa().emit);
  std::string text;
  llvm::raw_string_ostream out(text);
  module->print(out, nullptr);
  return text;
}

}  // namespace flashpoint::native
