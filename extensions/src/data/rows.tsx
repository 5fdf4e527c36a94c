/** Sample rows as a table: a few inline in the panel, all of them in a tab. */

import { ReactWidget } from '@jupyterlab/ui-components';
import React, { useEffect, useState } from 'react';

import { asProblem, Problem } from '../api';
import { asOf, cellText, Trouble } from '../parts';
import { Dataset, ISample } from '../resources';

const NUMERIC = /^(u?int|float|double|halffloat|decimal)/;

export function Rows(props: {
  sample: ISample;
  label: string;
  whole?: boolean;
}): JSX.Element {
  const { columns, rows } = props.sample;
  const sides = columns.map(({ type }) => (NUMERIC.test(type) ? 'tp-number' : ''));
  return (
    <div
      className={`tp-rows ${props.whole ? 'tp-mod-whole' : ''}`}
      tabIndex={0}
      role="region"
      aria-label={props.label}
    >
      <table>
        <thead>
          <tr>
            {props.whole && <th scope="col">#</th>}
            {columns.map(({ name, type }, index) => (
              <th key={name} scope="col" className={sides[index]} title={type}>
                {name}
                {props.whole && <span className="tp-type">{type}</span>}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((row, number) => (
            <tr key={number}>
              {props.whole && <th scope="row">{number + 1}</th>}
              {row.map((value, index) => (
                <Cell key={index} value={value} side={sides[index]} />
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Cell(props: { value: unknown; side: string }): JSX.Element {
  const text = cellText(props.value);
  return props.value === null ? (
    <td className={`tp-null ${props.side}`}>null</td>
  ) : (
    <td className={props.side} title={text.length > 24 ? text : undefined}>
      {text}
    </td>
  );
}

/** All stored sample rows of a dataset, in a tab of their own. */
export class Preview extends ReactWidget {
  constructor(
    private readonly shown: Dataset,
    private readonly load: () => Promise<ISample>
  ) {
    super();
    this.addClass('tp-preview');
  }

  protected render(): JSX.Element {
    return <Loaded dataset={this.shown} load={this.load} />;
  }
}

function Loaded(props: {
  dataset: Dataset;
  load: () => Promise<ISample>;
}): JSX.Element {
  const { dataset, load } = props;
  const [sample, setSample] = useState<ISample | null>(null);
  const [problem, setProblem] = useState<Problem | null>(null);
  useEffect(() => {
    load().then(setSample, error => setProblem(asProblem(error)));
  }, [load]);
  if (!sample) {
    return problem ? <Trouble problem={problem} /> : <p>…</p>;
  }
  const name = `${dataset.tenant}/${dataset.name}`;
  const all = dataset.status.rows?.toLocaleString() ?? '?';
  const shown = sample.rows.length.toLocaleString();
  return (
    <>
      <div className="tp-preview-said" role="status">
        <b>{name}</b> {shown} sample rows of {all}, as of {asOf(sample.as_of)}
      </div>
      <Rows sample={sample} label={`Sample rows of ${name}`} whole />
    </>
  );
}
