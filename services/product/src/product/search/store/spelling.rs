//! The SQL of words that may be misspelt.

use service::db::Connection;

/// A word that a product holds, and how alike it is to the one that was asked for, from 0 to 1.
pub struct Candidate {
    pub asked: String,
    pub word: String,
    pub alike: f32,
}

/// For each tsquery whether the shop has a product that it finds.
pub async fn are_known(connection: &mut Connection, queries: &[String]) -> sqlx::Result<Vec<bool>> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM products.products p
                          WHERE p.archived_at IS NULL AND p.search @@ asked.query::tsquery) AS "exists!"
           FROM UNNEST($1::text[]) WITH ORDINALITY AS asked (query, place) ORDER BY asked.place"#,
        queries
    )
    .fetch_all(connection)
    .await
}

/// For each word up to fifty of the products' that are like it, the most alike first.
pub async fn alike(connection: &mut Connection, asked: &[String]) -> sqlx::Result<Vec<Candidate>> {
    // Low, as a swap in a short word leaves few of its trigrams unchanged.
    // https://www.postgresql.org/docs/current/pgtrgm.html
    sqlx::query!("SELECT set_config('pg_trgm.similarity_threshold', '0.2', true)")
        .fetch_one(&mut *connection)
        .await?;
    sqlx::query_as!(
        Candidate,
        r#"SELECT asked.word AS "asked!", known.word, extensions.similarity(known.word, asked.word) AS "alike!"
           FROM UNNEST($1::text[]) AS asked (word)
           CROSS JOIN LATERAL (
               SELECT DISTINCT k.word, extensions.similarity(k.word, asked.word) AS alike
               FROM products.words k WHERE k.word OPERATOR(extensions.%) asked.word
               ORDER BY alike DESC, k.word LIMIT 50) known"#,
        asked
    )
    .fetch_all(connection)
    .await
}
