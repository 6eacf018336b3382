;; Cases for fuel, stack, names and reset. Built with wabt:
;;
;;	wat2wasm --debug-names -o cases.wasm cases.wat
(module $cases
  (type $i_i (func (param i32) (result i32)))
  (import "host" "note" (func $note (param i32) (result i32)))
  (memory (export "memory") 1 10)
  (table $t 4 100 funcref)
  (elem (i32.const 0) $leaf $branches $deep $note)
  (elem $passive func $leaf $deep)
  (data $d "some bytes, which are passive and long enough to be charged for")
  (global $count (mut i32) (i32.const 7))
  (global $ref funcref (ref.func $leaf))
  (global $fixed i64 (i64.const 1))
  (global $real (mut f64) (f64.const 1.5))

  (func $leaf (export "leaf") (type $i_i) local.get 0 i32.const 1 i32.add)

  ;; every kind of branch, and dead code with branches in it
  (func $branches (export "branches") (type $i_i) (local $sum i32)
    (block $out
      (loop $again
        (block $b2
          (block $b1
            (block $b0 (br_table $b0 $b1 $b2 $out (i32.and (local.get 0) (i32.const 7))))
            (local.set $sum (i32.add (local.get $sum) (i32.const 1)))
            (br $b2)
            (block (br_if $out (i32.const 1)) (br_table 0 1 $again (i32.const 0)) (drop (call $leaf (i32.const 1)))))
          nop
          (local.set $sum (i32.mul (local.get $sum) (i32.const 3))))
        (if (i32.and (local.get $sum) (i32.const 1))
          (then
            (local.set $sum (i32.add (local.get $sum) (i32.const 5)))
            (br_if $out (i32.gt_u (local.get $sum) (i32.const 1000))))
          (else (local.set $sum (i32.add (local.get $sum) (i32.const 2)))))
        (if (i32.eqz (local.get 0)) (then (return (local.get $sum))))
        (local.set 0 (i32.sub (local.get 0) (i32.const 1)))
        (br $again)))
    local.get $sum)

  ;; a loop with a parameter and a result, inside another
  (func (export "nested") (type $i_i) (local $i i32)
    i32.const 0
    (loop $outer (param i32) (result i32)
      (local.set $i (i32.const 5))
      (loop $inner (param i32) (result i32)
        (i32.add (local.get $i))
        (br_if $inner (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
      (br_if $outer (local.tee 0 (i32.sub (local.get 0) (i32.const 1))))))

  (func $deep (export "deep") (type $i_i)
    (if (result i32) (local.get 0)
      (then (i32.add (call $deep (i32.sub (local.get 0) (i32.const 1))) (i32.const 1)))
      (else (i32.const 0))))

  ;; two calls each, no loop: a tree of 2^n
  (func $tree (export "tree") (type $i_i)
    (drop (br_if 0 (i32.const 1) (i32.eqz (local.get 0))))
    (i32.add (call $tree (i32.sub (local.get 0) (i32.const 1)))
             (call $tree (i32.sub (local.get 0) (i32.const 1)))))

  (func (export "indirect") (type $i_i)
    (call_indirect (type $i_i) (i32.const 9) (i32.and (local.get 0) (i32.const 3))))

  (func (export "note") (type $i_i)
    (i32.add (call $note (local.get 0)) (call $leaf (local.get 0))))

  (func (export "fill") (type $i_i)
    (memory.fill (i32.const 0) (i32.const 1) (local.get 0))
    (memory.copy (i32.const 64) (i32.const 0) (i32.shr_u (local.get 0) (i32.const 1)))
    (memory.init $d (i32.const 0) (i32.const 0) (i32.const 63))
    (i32.load (i32.const 8)))

  (func (export "grow") (type $i_i)
    (memory.grow (local.get 0)))

  (func (export "tables") (type $i_i)
    (table.fill $t (i32.const 0) (ref.func $leaf) (i32.const 4))
    (table.copy (i32.const 0) (i32.const 2) (i32.const 2))
    (table.init $t $passive (i32.const 0) (i32.const 0) (i32.const 2))
    (drop (table.grow $t (ref.null func) (i32.const 8)))
    (elem.drop $passive)
    (i32.add (table.size $t) (table.grow $t (ref.null func) (local.get 0))))

  (func (export "endless") (type $i_i) (loop $l (br $l)) i32.const 0)
  (func (export "endless_fill") (type $i_i)
    (loop $l (memory.fill (i32.const 0) (i32.const 1) (i32.const 65536)) (br $l)) i32.const 0)
  (func $recursion (export "recursion") (type $i_i) (call $recursion (local.get 0)))
  (func (export "globals") (type $i_i)
    (global.set $count (i32.add (global.get $count) (local.get 0)))
    (global.set $real (f64.add (global.get $real) (global.get $real)))
    (global.get $count))
)
