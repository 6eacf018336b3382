;; exec asks for 1000 pages of memory, which fails if the limit is lower, and then
;; calls itself until the stack ends.
;; Build: make -C guest-examples wat
(module $grows-and-recurses
  (memory (export "memory") 1)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (drop (memory.grow (i32.const 1000)))
    (i64.add (i64.const 1) (call $exec (local.get $ptr) (local.get $size)))))
