#include <levada/ws/frame.h>

namespace levada::ws {

const char* to_string(FrameError error) {
  switch (error) {
    case FrameError::none:
      return "none";
    case FrameError::reserved_bits:
      return "reserved_bits";
    case FrameError::reserved_opcode:
      return "reserved_opcode";
    case FrameError::not_masked:
      return "not_masked";
    case FrameError::masked:
      return "masked";
    case FrameError::length_not_minimal:
      return "length_not_minimal";
    case FrameError::length_too_large:
      return "length_too_large";
    case FrameError::control_too_long:
      return "control_too_long";
    case FrameError::control_fragmented:
      return "control_fragmented";
    case FrameError::nothing_to_continue:
      return "nothing_to_continue";
    case FrameError::message_not_finished:
      return "message_not_finished";
    case FrameError::bad_close_payload:
      return "bad_close_payload";
    case FrameError::bad_close_code:
      return "bad_close_code";
    case FrameError::bad_text:
      return "bad_text";
    case FrameError::message_too_big:
      return "message_too_big";
    case FrameError::too_many_fragments:
      return "too_many_fragments";
    case FrameError::bad_deflate:
      return "bad_deflate";
    case FrameError::inflates_too_much:
      return "inflates_too_much";
  }
  return "none";
}

CloseCode close_code(FrameError error) {
  switch (error) {
    case FrameError::none:
      return CloseCode::normal;
    case FrameError::bad_text:
    case FrameError::bad_deflate:
      return CloseCode::invalid_payload;
    case FrameError::message_too_big:
    case FrameError::inflates_too_much:
      return CloseCode::message_too_big;
    case FrameError::too_many_fragments:
      return CloseCode::policy_violation;
    default:
      return CloseCode::protocol_error;
  }
}

}  // namespace levada::ws
