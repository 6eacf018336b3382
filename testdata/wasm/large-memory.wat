;; A memory of 1 GiB from the start.
;; Build: make -C guest-examples wat
(module $large-memory
  (memory (export "memory") 16384)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64) (i64.const 0)))
