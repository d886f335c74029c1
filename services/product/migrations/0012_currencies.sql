-- Prices are compared within one currency.
CREATE INDEX products_by_currency_price ON products.products (currency, price, id) WHERE archived_at IS NULL;
CREATE INDEX products_by_category_currency_price ON products.products (category, currency, price, id)
    WHERE archived_at IS NULL;
-- products_by_price and products_by_category_price stay for replicas of the release before, until a later one.
