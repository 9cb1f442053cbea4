#include <levada/core/task.h>

#include <sys/wait.h>
#include <unistd.h>
#include <csignal>
#include <memory>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

using namespace levada;

TEST_CASE("a task calls its function as often as asked") {
  int calls = 0;
  Task task([&calls] { calls++; });
  task();
  task();
  CHECK(calls == 2);
  CHECK(task);
  CHECK_FALSE(Task{});
}

TEST_CASE("a task owns what it captured and frees it once, also when it was moved or replaced") {
  auto shared = std::make_shared<int>(1);
  {
    Task task([shared] { (*shared)++; });
    CHECK(shared.use_count() == 2);
    Task moved(std::move(task));
    CHECK_FALSE(task);
    CHECK(shared.use_count() == 2);
    moved();
    moved = Task([] {});
    CHECK(shared.use_count() == 1);
  }
  CHECK(*shared == 2);
  CHECK(shared.use_count() == 1);
}

TEST_CASE("a task takes captures that cannot be copied") {
  int seen = 0;
  Task task([value = std::make_unique<int>(5), &seen] { seen = *value; });
  std::vector<Task> tasks;
  for (int i = 0; i < 10; i++) tasks.emplace_back([] {});
  tasks.push_back(std::move(task));
  tasks.back()();
  CHECK(seen == 5);
}

TEST_CASE("an exception that leaves a task ends the process") {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGABRT, SIG_DFL);
    close(STDERR_FILENO);
    try {
      Task task([] { throw 1; });
      task();
    } catch (...) {
    }
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
}
