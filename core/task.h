// Task: a move-only function without arguments whose captures are stored in place.
//
// std::function wants copyable captures and may allocate; a Task is 64 bytes and never does. An exception that leaves it
// ends the process (std::terminate).
#pragma once

#include <cstddef>
#include <new>
#include <type_traits>
#include <utility>

namespace levada {

class Task {
 public:
  static constexpr std::size_t max_capture_bytes = 48;

  Task() = default;

  template <class F>
  requires(!std::is_same_v<std::remove_cvref_t<F>, Task>) Task(F&& function) {
    using Function = std::remove_cvref_t<F>;
    static_assert(sizeof(Function) <= max_capture_bytes, "capture less, or capture a pointer");
    static_assert(alignof(Function) <= alignof(std::max_align_t));
    static_assert(std::is_nothrow_move_constructible_v<Function>);
    ::new (storage_) Function(std::forward<F>(function));
    call_ = [](void* self) noexcept { (*static_cast<Function*>(self))(); };
    relocate_ = [](void* from, void* to) noexcept {
      auto* source = static_cast<Function*>(from);
      if (to != nullptr) ::new (to) Function(std::move(*source));
      source->~Function();
    };
  }

  Task(Task&& other) noexcept { take(other); }
  Task& operator=(Task&& other) noexcept {
    if (this != &other) {
      clear();
      take(other);
    }
    return *this;
  }
  ~Task() { clear(); }

  explicit operator bool() const { return call_ != nullptr; }
  void operator()() { call_(storage_); }

 private:
  void take(Task& other) {
    if (!other) return;
    other.relocate_(other.storage_, storage_);
    call_ = std::exchange(other.call_, nullptr);
    relocate_ = other.relocate_;
  }

  void clear() {
    if (call_ != nullptr) relocate_(storage_, nullptr);
    call_ = nullptr;
  }

  void (*call_)(void* self) = nullptr;
  void (*relocate_)(void* from, void* to) = nullptr;
  alignas(std::max_align_t) std::byte storage_[max_capture_bytes];
};

}  // namespace levada
