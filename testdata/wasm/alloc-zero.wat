;; alloc always returns 0.
;; Build: make -C guest-examples wat
(module $alloc-zero
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 0))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64) (unreachable)))
