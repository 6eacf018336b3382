;; Grows its memory to the maximum that it declares, in each call, and returns
;; the number of pages that it had before: 1 on fresh state.
;; Build: make -C guest-examples wat
(module
  (memory (export "memory") 1 3)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param i32 i32) (result i64)
    (i32.store8 (i32.const 16) (memory.grow (i32.const 2)))
    (i64.const 0x1000000001)))
