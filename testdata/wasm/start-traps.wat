;; The start function traps.
;; Build: make -C guest-examples wat
(module $start-traps
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64) (i64.const 0))
  (func $start unreachable)
  (start $start))
