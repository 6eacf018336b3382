package binary

// Limits of a module. Those marked JS are the implementation limits of the
// WebAssembly JavaScript Interface specification, section
// "Implementation-defined Limits", which toolchains already respect. The others
// are lower, because the time and memory of compiling grow faster than the
// module. The comments have the measurements.
const (
	MaxModuleSize   = 256 << 20 // bytes; JS has 1 GiB
	MaxTypes        = 1_000_000 // JS
	MaxFunctions    = 1_000_000 // JS, imported and defined
	MaxImports      = 100_000   // JS has 1,000,000; the engine keeps 200 bytes for each
	MaxExports      = 100_000   // JS has 1,000,000
	MaxGlobals      = 1_000_000 // JS
	MaxDataSegments = 100_000   // JS
	MaxElements     = 100_000   // element segments
	MaxTables       = 100_000   // JS
	MaxParams       = 1_000     // JS
	MaxReturns      = 1_000     // JS
	MaxLocals       = 50_000    // JS, in one function with its parameters
	MaxBodySize     = 7_654_321 // bytes of one function; JS
	MaxTargets      = 65_520    // of one br_table; JS
	MaxMemoryPages  = 65_536

	// MaxTableSize limits the entries of all tables together, including those
	// that table.grow can add. JS has 10,000,000 for each table. An entry takes 8
	// bytes of the host's memory in each instance, and three times that while a
	// table grows; the limit of linear memory does not count them. Real guests
	// have up to 10,000.
	MaxTableSize = 1_000_000

	// MaxElementEntries limits the entries of all element segments together: the
	// engine keeps about 50 bytes for each. Real guests have up to 10,000.
	MaxElementEntries = 2_000_000

	// MaxTotalLocals limits the locals of all functions together. The engine
	// generates code to zero each local: two million, in 40 functions of 50,000,
	// compile in about a second.
	MaxTotalLocals = 5_000_000

	// MaxNesting limits the nesting of blocks in one function.
	MaxNesting = 10_000

	// MaxNestingWork limits the sum of the depths of all blocks of one function:
	// the engine's time for nested blocks grows with it. One nest of MaxNesting
	// blocks is below this limit.
	MaxNestingWork = 60_000_000

	// MaxBodyTargets limits the targets of all br_table instructions of one
	// function together, because the engine's time for them is quadratic.
	MaxBodyTargets = 200_000

	// MaxWork limits the time of compiling, in the units of work.go: 6 s of one
	// core. A larger module may take that for each megabyte.
	MaxWork      = 6_000_000_000
	workPerBytes = 1_000_000

	// MaxWorkMemory limits the memory in bytes for compiling one function, by the
	// prices of work.go. The engine reuses it for the next function. A larger
	// module may take that for each megabyte, up to four.
	MaxWorkMemory = 768 << 20
)
