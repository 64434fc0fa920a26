"""Writes the SQL script of the sqlite3 row on stdout: tables in memory, rows, indexes, queries, changes, deletes.

All values come from the row number by fixed arithmetic, so the answers are the same everywhere.
"""

ROWS = 40000

SCRIPT = f"""
.bail on
PRAGMA cache_size = -65536;
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT, note TEXT);
CREATE TABLE orders(id INTEGER PRIMARY KEY, customer INTEGER, amount REAL, state TEXT, payload BLOB);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS // 4})
INSERT INTO customer SELECT i, 'customer ' || (i * 7919 % 10007), 'city ' || (i * 31 % 97),
       substr('a longer note that is cut at a different place for every customer of the table', 1, i % 70) FROM n;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
INSERT INTO orders SELECT i, i * 48271 % {ROWS // 4} + 1, (i * 69621 % 100003) / 100.0,
       CASE i % 4 WHEN 0 THEN 'open' WHEN 1 THEN 'paid' WHEN 2 THEN 'sent' ELSE 'closed' END,
       zeroblob(i * 16807 % 300) FROM n;
COMMIT;
CREATE INDEX orders_customer ON orders(customer);
CREATE INDEX orders_state_amount ON orders(state, amount);
CREATE INDEX customer_city ON customer(city, name);
SELECT state, count(*), round(sum(amount), 2), max(length(payload)) FROM orders GROUP BY state ORDER BY state;
SELECT c.city, count(*), round(avg(o.amount), 3) FROM orders o JOIN customer c ON c.id = o.customer
       GROUP BY c.city ORDER BY 2 DESC, 1 LIMIT 10;
SELECT name, group_concat(city, ';') FROM (SELECT name, city FROM customer ORDER BY name, city, id)
       GROUP BY name HAVING count(*) > 1 ORDER BY name LIMIT 10;
UPDATE orders SET state = 'late', payload = zeroblob(length(payload) + 40) WHERE id % 5 = 0;
SELECT count(*), round(sum(amount), 2), sum(length(payload)) FROM orders WHERE state = 'late';
WITH words(word) AS (SELECT DISTINCT substr(note, 1, 20) FROM customer)
SELECT count(*), sum(length(word)) FROM words;
SELECT json_group_array(json_object('id', id, 'amount', amount)) FROM
       (SELECT id, amount FROM orders WHERE customer < 8 ORDER BY id);
SELECT sum(length(replace(note, 'e', 'ee'))), sum(instr(upper(name), '9')) FROM customer;
DELETE FROM orders WHERE amount < 300;
DELETE FROM customer WHERE id NOT IN (SELECT customer FROM orders);
SELECT (SELECT count(*) FROM customer), (SELECT count(*) FROM orders), (SELECT round(sum(amount), 2) FROM orders);
PRAGMA integrity_check;
DROP TABLE orders;
SELECT count(*), group_concat(DISTINCT city) FROM customer WHERE city LIKE 'city 1%';
"""

print(SCRIPT)
