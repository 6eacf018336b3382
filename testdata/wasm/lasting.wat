;; Counts its calls in a table, which no reset of memory and globals undoes: the
;; host must make a new instance for each call. Returns 0 on fresh state, else 1.
;; Build: make -C guest-examples wat
(module
  (memory (export "memory") 1)
  (table $t 1 funcref)
  (func $mark)
  (elem declare func $mark)
  (func (export "alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "exec") (param i32 i32) (result i64)
    (i32.store8 (i32.const 16) (i32.eqz (ref.is_null (table.get $t (i32.const 0)))))
    (table.set $t (i32.const 0) (ref.func $mark))
    (i64.const 0x1000000001)))
