;; Returns a byte string of the time and eight random bytes.
;; Build: make -C guest-examples wat
(module
  (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
  (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param i32 i32) (result i64)
    (i32.store8 (i32.const 15) (i32.const 0x50))
    (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 16)))
    (drop (call $random (i32.const 24) (i32.const 8)))
    (i64.const 0x0f00000011)))
