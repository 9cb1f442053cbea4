// Files: whole ones, read and written.
#pragma once

#include <string>

namespace levada::load {

// On failure (a folder, too) returns false.
bool read_file(const std::string& path, std::string& text);
bool write_file(const std::string& path, const std::string& text);

// Whether write_file() would probably succeed; leaves the file as it is.
bool can_write(const std::string& path);

}  // namespace levada::load
