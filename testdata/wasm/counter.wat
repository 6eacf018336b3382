;; Counts its calls in memory, and returns the count, which is at most 23: 1 on
;; fresh state. Build: make -C guest-examples wat
(module
  (memory (export "memory") 1)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param i32 i32) (result i64)
    (i32.store8 (i32.const 16) (i32.rem_u (i32.add (i32.load8_u (i32.const 16)) (i32.const 1)) (i32.const 24)))
    (i64.const 0x1000000001)))
