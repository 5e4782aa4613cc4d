// Plain files, read whole or up to a limit.
#pragma once

#include <cstdint>
#include <string>

namespace pcaseg {

enum class PathKind { nothing, file, folder, other };

/// What stands at a path, links followed. Throws std::system_error where the system does not say.
PathKind kind_of(const std::string& path);

/// At most `limit` bytes of a file. Throws std::system_error.
std::string read_file(const std::string& path, uint64_t limit);

/// The sentence for a path of which the system does not say what it is.
std::string refusal(const std::string& path, int number);

}  // namespace pcaseg
