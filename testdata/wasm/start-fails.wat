;; The start function reports a failure to the host, and returns.
;; Build: make -C guest-examples wat
(module $start-fails
  (import "wasm_jobs" "fail" (func $fail (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64) (i64.const 0))
  (func $start (call $fail (i32.const 0) (i32.const 0) (i32.const 0)))
  (start $start))
