#include "engines.h"

#include <algorithm>
#include <filesystem>
#include <stdexcept>
#include <system_error>

#include "../backend.h"
#include "../error.h"
#include "../files.h"
#include "../json.h"

namespace pcaseg {
namespace {

constexpr uint64_t sidecar_most_bytes = 16 << 20;
constexpr int64_t sidecar_schema = 2;
const char* const build_anew = "; build it anew with pcaseg build";

using Kind = Json::Kind;

/// A member of an object that is there and of its kind. Throws std::invalid_argument.
const Json& member(const Json& object, const char* name, Kind kind) {
  const Json* found = object.find(name);
  if (found == nullptr || found->kind != kind)
    throw std::invalid_argument(std::string(name) + " is missing or of another type");
  return *found;
}

/// Paths of the sidecars in a folder, by name; none where there is no such folder.
std::vector<std::string> sidecars(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code absent;
  for (const auto& entry : std::filesystem::directory_iterator(folder, absent))
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// Adds the engine of a sidecar, where it is of that graph. Throws std::invalid_argument: the sidecar is damaged.
void add(const std::string& path, const Bundle& bundle, const std::string& role, std::vector<StoredEngine>& engines) {
  const Json sidecar = parse_json(read_file(path, sidecar_most_bytes));
  if (member(sidecar, "schema_version", Kind::integer).whole() != sidecar_schema)
    throw std::invalid_argument("schema_version is not 2");
  const Json& key = member(sidecar, "key", Kind::object);
  const FileEntry* graph = bundle.manifest().find(segmenter_name);
  const auto text = [&](const char* name) { return member(key, name, Kind::string).text; };
  const char* const precision = bundle.manifest().precision == "float16" ? "fp16" : "fp32";
  const bool fits = text("runtime") == "tensorrt" && text("graph") == role && text("precision") == precision &&
                    graph != nullptr && text("onnx_sha256") == graph->sha256 &&
                    !member(key, "weight_stripped", Kind::boolean).truth &&
                    (key.find("plugins") == nullptr || key.find("plugins")->kind == Kind::null);
  if (!fits) return;
  const std::string plan = path.substr(0, path.rfind('.')) + ".plan";
  engines.push_back({plan, member(sidecar, "sha256", Kind::string).text, member(sidecar, "nbytes", Kind::integer).whole(),
                     member(key, "version_compatible", Kind::boolean).truth});
}

}  // namespace

std::string StoredEngine::read() const {
  std::string data;
  try {
    data = read_file(path, uint64_t(bytes) + 1);
  } catch (const std::system_error& reason) {
    throw Error(PCASEG_BAD_BUNDLE, path + ": cannot be read (" + reason.code().message() + ")" + build_anew);
  }
  if (data.size() != uint64_t(bytes) || sha256_of(data) != sha256)
    throw Error(PCASEG_BAD_BUNDLE, path + ": differs from what was built (truncated or altered)" + build_anew);
  return data;
}

std::vector<StoredEngine> find_engines(const Bundle& bundle, const std::string& role) {
  std::vector<StoredEngine> engines;
  for (const std::string& path : sidecars(bundle.shown("engines"))) {
    const auto refuse = [&](const std::string& reason) {
      throw Error(PCASEG_BAD_BUNDLE,
                  path + ": no sidecar of an engine (" + reason + "); delete it, and run pcaseg build again");
    };
    try {
      add(path, bundle, role, engines);
    } catch (const std::invalid_argument& reason) {
      refuse(reason.what());
    } catch (const std::system_error& reason) {
      refuse(reason.code().message());
    }
  }
  if (engines.empty())
    throw Error(PCASEG_BAD_BUNDLE, bundle.shown("engines") + ": holds no TensorRT engine of the bundle's " + role +
                                       " graph, with its weights and without plugins; run: " + build_command(bundle, role));
  return engines;
}

std::string build_command(const Bundle& bundle, const std::string& role) {
  return "pcaseg build " + bundle.path() + (role == "large" ? " --profile large" : "");
}

}  // namespace pcaseg
