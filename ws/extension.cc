#include <levada/ws/extension.h>

#include <algorithm>

namespace levada::ws {
namespace {

// Takes the longest run of token characters off the front of `text`; empty if there is none.
std::string_view take_token(std::string_view& text) {
  const std::string_view token = text.substr(0, token_size(text));
  text.remove_prefix(token.size());
  return token;
}

// Takes `mark` and the white space around it off the front of `text`. False and nothing taken without it.
bool take_mark(std::string_view& text, char mark) {
  const std::string_view from_mark = trim(text);
  if (from_mark.empty() || from_mark.front() != mark) return false;
  text = trim(from_mark.substr(1));
  return true;
}

// Takes a quoted string whose unescaped value is a token; `raw` is what stands between the quotes.
bool take_quoted(std::string_view& text, std::string_view& raw) {
  std::size_t at = 1;  // behind the opening quote
  while (at < text.size() && text[at] != '"') {
    if (text[at] == '\\') ++at;
    if (at >= text.size() || !is_token(text.substr(at, 1))) return false;
    ++at;
  }
  if (at >= text.size() || at == 1) return false;  // not ended, or empty, which no token is
  raw = text.substr(1, at - 1);
  text.remove_prefix(at + 1);
  return true;
}

}  // namespace

// ---- Values ----

bool ExtensionValue::next(std::string_view& raw, char& character) {
  if (!raw.empty() && raw.front() == '\\') raw.remove_prefix(1);
  if (raw.empty()) return false;
  character = raw.front();
  raw.remove_prefix(1);
  return true;
}

bool ExtensionValue::operator==(std::string_view text) const {
  if (!present_) return false;
  std::string_view raw = raw_;
  char character = 0;
  while (next(raw, character)) {
    if (text.empty() || text.front() != character) return false;
    text.remove_prefix(1);
  }
  return text.empty();
}

int ExtensionValue::number() const {
  constexpr int too_large = 1'000'000;
  std::string_view raw = raw_;
  int number = -1;
  for (char digit = 0; next(raw, digit);) {
    if (digit < '0' || digit > '9' || number == 0) return -1;
    number = std::max(number, 0) * 10 + (digit - '0');
    if (number >= too_large) return -1;
  }
  return number;
}

// ---- Parameters and extensions ----

bool ExtensionParameters::next(ExtensionParameter& parameter) {
  std::string_view rest = rest_;
  if (!take_mark(rest, ';')) return false;
  const std::string_view name = take_token(rest);
  if (name.empty()) return false;
  ExtensionValue value;
  if (take_mark(rest, '=')) {
    std::string_view raw;
    if (rest.empty()) return false;
    if (rest.front() == '"') {
      if (!take_quoted(rest, raw)) return false;
    } else {
      raw = take_token(rest);
      if (raw.empty()) return false;
    }
    value = ExtensionValue(raw);
  }
  parameter = {name, value};
  rest_ = rest;
  return true;
}

bool parse_extension(std::string_view item, Extension& extension) {
  item = trim(item);
  extension.name = take_token(item);
  extension.parameters = ExtensionParameters(item);
  if (extension.name.empty()) return false;
  ExtensionParameters all = extension.parameters;
  for (ExtensionParameter parameter; all.next(parameter);) {
  }
  return all.valid();
}

// ---- Lists ----

bool ExtensionCursor::next_item(std::string_view& item) {
  while (!next_list_item(list_, item)) {
    if (head_ == nullptr) return false;
    const auto fields = head_->fields();
    while (field_ < fields.size() && head_->id(field_) != FieldId::sec_websocket_extensions) ++field_;
    if (field_ == fields.size()) return false;
    list_ = fields[field_++].value;
    in_list_ = true;
  }
  return true;
}

bool ExtensionCursor::next(Extension& extension) {
  std::string_view item;
  return next_item(item) && parse_extension(item, extension);
}

bool ExtensionCursor::valid() const {
  // What most browsers send, each time they connect.
  constexpr std::string_view usual = "permessage-deflate; client_max_window_bits";
  constexpr FieldId id = FieldId::sec_websocket_extensions;
  if (head_ != nullptr && head_->count(id) == 1 && head_->find(id) == usual) return true;
  ExtensionCursor all = head_ != nullptr ? ExtensionCursor(*head_) : ExtensionCursor(value_);
  std::size_t count = 0;
  for (std::string_view item; all.next_item(item); ++count) {
    Extension extension;
    if (!parse_extension(item, extension)) return false;
  }
  return count != 0 || !all.in_list_;
}

}  // namespace levada::ws
