;; A chunk that is an integer below 4 changes tables without end; any other chunk
;; is its own output.
;; Build: make -C guest-examples wat
(module $table-bomb
  (memory (export "memory") 1)
  (table $small 1 500000 funcref)
  (table $large 500000 funcref)
  (func $alloc (export "alloc") (param $size i32) (result i32) (i32.const 64))
  (func $exec (export "exec") (param $ptr i32) (param $size i32) (result i64)
    (block $ends
      (block $fills (block $copies (block $grows (block $grows0
        (br_table $grows0 $grows $copies $fills $ends (i32.load8_u (local.get $ptr))))
      ;; 0: growing by 0
      (loop $l (drop (table.grow $small (ref.null func) (i32.const 0))) (br $l)))
      ;; 1: growing to the limit, one by one, and on
      (loop $l (drop (table.grow $small (ref.null func) (i32.const 1))) (br $l)))
      ;; 2: the largest copies
      (loop $l (table.copy $large $large (i32.const 1) (i32.const 0) (i32.const 499999)) (br $l)))
      ;; 3: the largest fills
      (loop $l (table.fill $large (i32.const 0) (ref.null func) (i32.const 500000)) (br $l)))
    (i64.or (i64.shl (i64.extend_i32_u (local.get $ptr)) (i64.const 32))
      (i64.extend_i32_u (local.get $size)))))
