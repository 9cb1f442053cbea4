// Extensions in the opening handshake (RFC 6455 section 9.1): the value of Sec-WebSocket-Extensions, as views.
//
//   extension-list  = 1#extension
//   extension       = token *( ";" extension-param )
//   extension-param = token [ "=" (token | quoted-string) ]      a quoted value is a token, too, once unescaped
//
// Model: an ExtensionCursor walks the list that all fields of that name make up, an ExtensionParameters the
// parameters of one extension. Whether the text is such a list and whether anybody knows the extensions in it
// are two questions: this answers the first. The RFC asks to fail a handshake whose text is none.
//
// White space may stand around "," ";" and "=" (the section names RFC 2616's implied white space), and empty
// list items are skipped, but one item there must be (RFC 9110 section 5.6.1.2). Names and values are compared
// with regard to case.
//
// Nothing allocates; views point into the parsed text and live as long as it does. Any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include <levada/ws/http.h>

namespace levada::ws {

// The value of a parameter as it was sent, without its quotes.
class ExtensionValue {
 public:
  ExtensionValue() = default;
  explicit ExtensionValue(std::string_view raw) : raw_(raw), present_(true) {}

  // Whether there was a value at all.
  bool present() const { return present_; }

  // Whether the value, unescaped, is this text.
  bool operator==(std::string_view text) const;

  // The value as a decimal number without leading zeros, or -1 if it is none that is below one million.
  int number() const;

 private:
  // The next character, unescaped; false at the end. A token has no backslash: each one found escapes.
  static bool next(std::string_view& raw, char& character);

  std::string_view raw_;
  bool present_ = false;
};

struct ExtensionParameter {
  std::string_view name;
  ExtensionValue value;
};

// Walks the parameters of an Extension:  while (parameters.next(parameter)) ...
class ExtensionParameters {
 public:
  ExtensionParameters() = default;
  // `text`: empty, or ";" and what follows it.
  explicit ExtensionParameters(std::string_view text) : rest_(text) {}

  // True and the next parameter, or false at the end or where the text is not by the grammar.
  bool next(ExtensionParameter& parameter);

  // After next() was false: whether the end was reached.
  bool valid() const { return rest_.empty(); }

 private:
  std::string_view rest_;
};

// One extension of the list.
struct Extension {
  std::string_view name;
  ExtensionParameters parameters;  // of an extension that ExtensionCursor gave: all of them are valid
};

// Parses one list item. False if it is not by the grammar.
bool parse_extension(std::string_view item, Extension& extension);

// Walks the extensions of a head, all its Sec-WebSocket-Extensions fields in order, or of one value.
class ExtensionCursor {
 public:
  explicit ExtensionCursor(const HttpHead& head) : head_(&head) {}
  explicit ExtensionCursor(std::string_view value) : value_(value), list_(value), in_list_(true) {}

  // True and the next extension, or false at the end or at an item that is none.
  bool next(Extension& extension);

  // Whether the whole is by the grammar: no field at all, or a list of at least one extension. Looks at all of
  // it, wherever the cursor stands.
  bool valid() const;

 private:
  bool next_item(std::string_view& item);

  const HttpHead* head_ = nullptr;
  std::string_view value_;  // without a head: the whole
  std::size_t field_ = 0;   // of the head: where to go on
  std::string_view list_;
  bool in_list_ = false;  // there was a field
};

}  // namespace levada::ws
