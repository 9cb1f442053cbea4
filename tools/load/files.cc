#include <levada/tools/load/files.h>

#include <unistd.h>
#include <filesystem>
#include <fstream>

namespace levada::load {

bool read_file(const std::string& path, std::string& text) {
  std::ifstream file(path, std::ios::binary);
  char piece[65536];
  text.clear();
  while (file.read(piece, sizeof piece), file.gcount() > 0)
    text.append(piece, static_cast<std::size_t>(file.gcount()));
  return file.eof() && !file.bad();
}

bool write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  return static_cast<bool>(file);
}

bool can_write(const std::string& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error))
    return !std::filesystem::is_directory(path, error) && access(path.c_str(), W_OK) == 0;
  const auto folder = std::filesystem::path(path).parent_path();
  return access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) == 0;
}

}  // namespace levada::load
