package flow_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// App has the program's own values. It is never stored.
type App struct{ Prices map[string]int }

// Batch is the same for all items, and stored.
type Batch struct{ Currency string }

// Item is the data of an item.
type Item struct {
	Shop  string
	Price int
	Text  string
}

// printed is a sink that prints.
type printed struct{}

func (printed) Ended(e *flow.End) error {
	var i Item
	err := cbor.Unmarshal(e.Data, &i)
	fmt.Println(e.ID, e.State, i.Text)
	return err
}

func (printed) Dead(d *flow.Dead) error {
	fmt.Println(d.ID, d.State)
	return nil
}

func Example() {
	app := &App{Prices: map[string]int{"a": 3, "b": 5}}
	b := flow.New[Batch, Item]("prices", Batch{"EUR"})
	shop := b.Limit("shop", flow.Limit{Rate: 1000, Concurrency: 2})
	flow.Effectful(b, "fetch", app, func(_ context.Context, s flow.Step[*App, Batch, Item]) (flow.Move[Item], error) {
		price, known := s.App.Prices[s.Item.Shop]
		if !known {
			return flow.Move[Item]{}, &flow.RouteError{State: "unknown", Err: errors.New("no such shop")}
		}
		s.Item.Price = price
		return flow.To("score", s.Item), nil
	}, flow.Under(shop), flow.Moves("score", "unknown"))
	flow.Pure(b, "score", "v1", func(_ context.Context, batch Batch, i Item) (flow.Move[Item], error) {
		i.Text = fmt.Sprintf("%d %s", i.Price, batch.Currency)
		return flow.To("done", i), nil
	}, flow.Moves("done"))
	b.End("done")
	b.End("unknown", flow.Failing())
	f, err := b.Flow()
	if err != nil {
		fmt.Println(err)
		return
	}
	var items [][]byte
	for _, name := range []string{"a", "b", "c"} {
		item, err := cbor.Marshal(Item{Shop: name})
		if err != nil {
			fmt.Println(err)
			return
		}
		items = append(items, item)
	}
	roots, err := chunks.Of(items...)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer roots.Close()
	res, err := flow.NewRunner(flow.Config{}).Run(context.Background(), &flow.Run{Flow: f, Input: roots, Sink: printed{}})
	fmt.Println(res.Report.State, err)
	// Output:
	// 0 done 3 EUR
	// 1 done 5 EUR
	// 2 unknown
	// failed <nil>
}
