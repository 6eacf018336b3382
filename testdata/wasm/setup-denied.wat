;; setup asks for 1000 pages of memory, which fails if the limit is lower, and goes on without; exec traps.
;; Build: make -C guest-examples wat
(module $setup-denied
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $setup (export "setup") (param $ptr i32) (param $size i32) (result i64)
    (drop (memory.grow (i32.const 1000)))
    (i64.const 0))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    unreachable))
